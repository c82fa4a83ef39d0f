"""Configs of the built-in kinds: what is refused, and how that reads."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agents.probes.base import ProbeKind
from agents.probes.registry import probe_kind, probe_kinds

URL = "http://127.0.0.1/"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("http", {"url": URL}),
        ("http", {"url": URL, "method": "POST", "body": "{}", "headers": {"x-a": "b"}}),
        ("http", {"url": URL, "expect": {"status": [201, "300-399"]}}),
        ("http", {"url": URL, "header_files": {"authorization": "/etc/token", "cookie": "/etc/cookie"}}),
        ("tcp", {"host": "::1", "port": 25, "send": "QUIT\r\n", "expect": "220"}),
        ("dns", {"name": "example.org", "type": "MX", "server": "127.0.0.1", "expect": ["10 mail.example.org"]}),
        ("tls", {"host": "example.org", "min_valid_days": 14}),
        ("disk", {"path": "/var", "min_free": "20GiB"}),
        ("process", {"name": "sshd", "min_count": 0, "max_count": 0}),
    ],
)  # fmt: skip
def test_a_good_config_makes_a_probe(kind: str, config: dict[str, Any]) -> None:
    found = probe_kind(kind)
    assert found.build(found.config.model_validate(config)) is not None


@pytest.mark.parametrize(
    ("kind", "config", "complaint"),
    [
        ("http", {"url": "gopher://a/"}, "scheme 'gopher'; expected http or https"),
        ("http", {"url": "http://u:p@a/"}, r"credentials in the URL; expected them in a file \(header_files\)"),
        ("http", {"url": URL, "headers": {"Authorization": "x"}}, "a secret in the config; expected it under header_f"),
        ("http", {"url": URL, "headers": {"cookie": "x"}}, "a secret in the config"),
        ("http", {"url": URL, "headers": {"Connection": "keep-alive"}}, "and none of: accept-encoding, connection"),
        ("http", {"url": URL, "headers": {"A B": "x"}}, "expected the name of a header"),
        ("http", {"url": URL, "headers": {"A": "x\r\nB: c"}}, "expected printable ASCII"),
        ("http", {"url": URL, "method": "TRACE"}, "'GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH' or 'DELETE'"),
        ("http", {"url": URL, "expect": {"status": ["2xx"]}}, "expected a status such as 204 or a range"),
        ("http", {"url": URL, "expect": {"status": ["299-200"]}}, "expected a status such as 204"),
        ("http", {"url": URL, "expect": {"body_regex": "(a"}}, "missing .*; expected a regular expression as RE2"),
        ("http", {"url": URL, "expect": {"body_regex": r"(a)\1"}}, "invalid escape sequence"),
        ("http", {"url": URL, "max_redirects": 99}, "less than or equal to 20"),
        ("http", {"url": URL, "proxy": "http://p/"}, "Extra inputs are not permitted"),
        ("http", {"url": URL, "auth": {}}, "expected one of basic and bearer_file"),
        (
            "http",
            {"url": URL, "auth": {"bearer_file": "/t", "basic": {"username": "u", "password_file": "/p"}}},
            "expected one of basic and bearer_file",
        ),
        ("http", {"url": URL, "auth": {"basic": {"username": "a:b", "password_file": "/p"}}}, "should match pattern"),
        (
            "http",
            {"url": URL, "auth": {"bearer_file": "/t"}, "header_files": {"authorization": "/t"}},
            "auth and header_files.authorization; expected one of them",
        ),
        ("http", {"url": URL, "expect": {"min_valid_days": 2}}, "needs a certificate that is verified; expected https"),
        (
            "http",
            {"url": URL, "max_body_bytes": 5 << 20, "expect": {"body_json": [{"path": "$.a"}]}},
            "max_body_bytes 5242880; expected at most 4194304 with body_json",
        ),
        ("http", {"url": URL, "expect": {"body_json": [{"path": "$..a"}]}}, r"not understood from '..a' on; expected"),
        (
            "http",
            {"url": URL, "expect": {"body_json": [{"path": "$", "min_count": 2, "max_count": 1}]}},
            "max_count 1; expected at least min_count, 2",
        ),
        ("http", {"url": URL, "expect": {"header_regex": {"a": "("}}}, "expected a regular expression as RE2"),
        ("http", {"url": URL, "expect": {"max_latency_ms": 0}}, "greater than 0"),
        ("tcp", {"host": "a b", "port": 1}, "expected a host name in ASCII"),
        ("tcp", {"host": "a", "port": 0}, "greater than or equal to 1"),
        ("tls", {"host": "a", "verify": False, "min_valid_days": 3}, "needs the certificate to be verified"),
        ("dns", {"name": "a", "type": "ANY"}, "'A', 'AAAA'"),
        ("dns", {"name": "a", "server": "ns.example"}, "valid IPv4 address"),
        ("dns", {"name": "a..b"}, "a..b: A DNS label is empty.; expected a domain name"),
        ("dns", {"name": "a", "expect": ["127.0.0"]}, "expect '127.0.0': .*; expected the data of a record of type A"),
        ("dns", {"name": "a", "match": "exact"}, "match: exact without expect; expected the records"),
        ("dns", {"name": "a", "rcode": "NXDOMAIN", "expect": ["::1"], "type": "AAAA"}, "with expected records"),
        ("dns", {"name": "a", "expect_regex": ["("]}, "expected a regular expression as RE2"),
        ("icmp", {"host": "a", "packets": 100, "interval_ms": 60_000}, "expected at most an hour in all"),
        ("icmp", {"host": "a", "max_loss_percent": 100}, "less than 100"),
        ("icmp", {"host": "a", "size": 4}, "greater than or equal to 8"),
        ("disk", {"path": "var"}, "expected an absolute one"),
        ("process", {}, "no process; expected name, cmdline_contains or both"),
        ("process", {"name": "a", "min_count": 2, "max_count": 1}, "max_count 1; expected at least min_count, 2"),
    ],
)  # fmt: skip
def test_a_bad_config_is_refused_with_what_was_expected(kind: str, config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        probe_kind(kind).config.model_validate(config)


@pytest.mark.parametrize("kind", probe_kinds().values(), ids=lambda kind: kind.name)
def test_every_kind_refuses_unknown_keys_and_says_what_its_config_is(kind: ProbeKind[BaseModel]) -> None:
    assert kind.config.model_config.get("extra") == "forbid"
    assert kind.config.model_config.get("frozen") is True
    assert kind.config.__doc__
