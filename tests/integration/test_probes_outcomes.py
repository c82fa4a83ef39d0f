"""Probes of http, tcp and dns against real servers: each outcome with its reason."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from dns.asyncresolver import Resolver as Stub

from agents.probes.base import Down, Failure, Outcome, Up
from agents.probes.dns import DnsConfig, DnsProbe
from agents.probes.registry import probe_kind
from agents.probes.resolver import SystemResolver
from agents.probes.tcp import TcpConfig, TcpProbe
from agents.probes.trace import Trace, traced
from tests.integration.probe_servers import (
    LOOPBACK,
    Talk,
    Web,
    dripping,
    name_server,
    redirect,
    resolver_at,
    serving,
    silent,
)


def ask(talk: Talk, path: str = "/", deadline_s: float = 5.0, **config: object) -> Outcome:
    async def main() -> Outcome:
        async with serving(talk) as port:
            kind = probe_kind("http")
            settings = kind.config.model_validate({"url": f"http://{LOOPBACK}:{port}{path}", **config})
            return await kind.build(settings).run(deadline_s)

    return asyncio.run(main())


def http(head: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *head.splitlines()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sized(body: bytes, status: str = "200 OK") -> bytes:
    return http(f"Content-Length: {len(body)}\nContent-Type: application/json", body, status)


@pytest.mark.parametrize(
    ("answer", "config"),
    [
        pytest.param(sized(b"ok"), {}, id="a body with its length"),
        pytest.param(http("", b"ok"), {"expect": {"body_contains": "ok"}}, id="a body until the server hangs up"),
        pytest.param(
            http("Transfer-Encoding: chunked", b"2\r\n{'\r\n3\r\nok'\r\n0\r\nTrailer: t\r\n\r\n"),
            {"expect": {"body_contains": "{'ok'"}},
            id="a text over the edge of chunks",
        ),
        pytest.param(sized(b"", "204 No Content"), {"expect": {"status": [204]}}, id="a status by number"),
        pytest.param(sized(b"no", "503 Busy"), {"expect": {"status": [200, "500-599"]}}, id="a status in a range"),
        pytest.param(sized(b"{}"), {"expect": {"headers": {"content-type": "json"}}}, id="a header in any case"),
        pytest.param(sized(b'{"n": 12}'), {"expect": {"body_regex": r'"n":\s*\d+'}}, id="a regular expression"),
        pytest.param(
            http("Link: </x>", status="103 Early Hints") + sized(b"ok"), {}, id="hints that come before the answer"
        ),
        pytest.param(http("Content-Length: 999"), {"method": "HEAD"}, id="HEAD, where no body follows"),
        pytest.param(http("Upgrade: h2c\nConnection: upgrade", status="101 Switching"), {"expect": {"status": [101]}}),
        pytest.param(sized(b"{}"), {"expect": {"header_regex": {"content-type": "^application/.*json$"}}}, id="by RE2"),
        pytest.param(sized(b"fine"), {"expect": {"body_not_regex": "(?i)error"}}, id="a body without an error"),
        pytest.param(
            sized(b'{"status": "UP", "nodes": [{"load": 3}, {"load": 4.5}]}'),
            {
                "expect": {
                    "body_json": [
                        {"path": "$.status", "equals": "UP"},
                        {"path": "$.nodes[*].load", "at_least": 1, "at_most": 5, "min_count": 2},
                        {"path": "$.error", "max_count": 0},
                    ],
                    "max_latency_ms": 60_000,
                }
            },
            id="JSON by its paths, in time",
        ),
        pytest.param(redirect("/elsewhere"), {"max_redirects": 0, "expect": {"status": [302]}}, id="an own redirect"),
    ],
)
def test_http_is_up(answer: bytes, config: dict[str, Any]) -> None:
    outcome = ask(Web(answer), **config)
    assert isinstance(outcome, Up), outcome
    assert outcome.status_code is not None


@pytest.mark.parametrize(
    ("answer", "config", "reason", "detail"),
    [
        pytest.param(sized(b"", "500 Oh"), {}, "status", "500; expected 200-299", id="a wrong status"),
        pytest.param(
            sized(b"{}"), {"expect": {"headers": {"X-Version": "2"}}}, "header", "X-Version: None; expected '2' in it"
        ),
        pytest.param(sized(b"no"), {"expect": {"body_contains": "ok"}}, "body", "'ok' is not in its 2 bytes"),
        pytest.param(sized(b"no"), {"expect": {"body_regex": "^o"}}, "body", "'^o' matches nothing in its 2 bytes"),
        pytest.param(
            sized(b"{}"), {"expect": {"header_regex": {"content-type": "^text/"}}}, "header",
            "Content-Type: 'application/json'; expected what '^text/' matches",
        ),
        pytest.param(
            sized(b"Oh, an Error"), {"expect": {"body_not_regex": "(?i)error"}}, "body",
            "'(?i)error' matches in its 12 bytes; expected that it does not",
        ),
        pytest.param(
            sized(b'{"status": "DOWN"}'), {"expect": {"body_json": [{"path": "$.status", "equals": "UP"}]}}, "json",
            '$.status is "DOWN"; expected "UP"',
        ),
        pytest.param(sized(b"ok"), {"expect": {"body_json": [{"path": "$.a"}]}}, "json", "no JSON: ", id="no JSON"),
        pytest.param(
            sized(b"ok"), {"expect": {"max_latency_ms": 0.001}}, "latency", "ms; expected at most 0.001", id="too slow"
        ),
        pytest.param(b"", {}, "closed", "closed without an answer", id="a server that hangs up"),
        pytest.param(http("Content-Length: 9", b"short"), {}, "closed", "in the middle", id="half a body"),
        pytest.param(http("Transfer-Encoding: chunked", b"5\r\nab"), {}, "closed", "in the middle", id="half a chunk"),
        pytest.param(http("Transfer-Encoding: chunked", b"zz\r\n"), {}, "bad-answer", "no HTTP", id="no size"),
        pytest.param(b"SSH-2.0-OpenSSH_9\r\n", {}, "bad-answer", "begins with b'SSH-2.0", id="another protocol"),
        pytest.param(bytes(range(256)) * 9, {}, "bad-answer", "no HTTP", id="garbage"),
        pytest.param(http("Content-Length: -1"), {}, "bad-answer", "no HTTP", id="less than none"),
        pytest.param(
            http("Content-Length: 2\nTransfer-Encoding: chunked", b"ok"), {}, "bad-answer", "no HTTP", id="two lengths"
        ),
        pytest.param(http("Content-Length: 4096"), {"max_body_bytes": 4095}, "too-large", "4095", id="says so"),
        pytest.param(http("", b"x" * 200_000), {"max_body_bytes": 4095}, "too-large", "4095", id="too long, it shows"),
        pytest.param(
            http("Transfer-Encoding: chunked", b"1\r\nx\r\n" * 40_000), {"max_body_bytes": 4095}, "too-large", "4095"
        ),
        pytest.param(
            http("Transfer-Encoding: chunked", b"1;" + b"x" * 200_000), {"max_body_bytes": 4095}, "too-large", "4095",
            id="one chunk with an extension that never ends",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, {}, "too-large", "headers", id="a header without end"),
        pytest.param(http("X: y\n" * 300), {}, "too-large", "more than 256 headers", id="a thousand headers"),
        pytest.param(http("X: y", status="100 Continue") * 300, {}, "too-large", "headers", id="hints without end"),
        pytest.param(redirect("/again"), {"max_redirects": 3}, "too-many-redirects", "max_redirects, 3", id="a circle"),
        pytest.param(redirect("ftp://127.0.0.1/"), {}, "bad-redirect", "scheme 'ftp'", id="to another scheme"),
        pytest.param(redirect("file:///etc/passwd"), {}, "bad-redirect", "scheme 'file'", id="to a file"),
        pytest.param(redirect("http://u:p@127.0.0.1/"), {}, "bad-redirect", "credentials", id="with credentials"),
        pytest.param(redirect("http://a\\@127.0.0.1/"), {}, "bad-redirect", "backslash", id="to two hosts at once"),
        pytest.param(redirect("http://:80/x"), {}, "bad-redirect", "host missing", id="to nowhere"),
    ],
)  # fmt: skip
def test_http_is_down_with_its_reason(answer: bytes, config: dict[str, Any], reason: str, detail: str) -> None:
    outcome = ask(Web(answer), **config)
    assert isinstance(outcome, Down), outcome
    assert (outcome.reason, detail in outcome.detail) == (reason, True), outcome
    validates = reason in {"status", "header", "body", "json", "latency"}
    assert (outcome.failure is Failure.VALIDATION) == validates


def test_a_redirect_is_followed_and_its_phases_are_summed() -> None:
    web = Web(lambda request: redirect("/b?token=t") if b" /a " in request else sized(b"ok"))
    outcome = ask(web, "/a")
    assert isinstance(outcome, Up), outcome
    assert [request.split(b" ")[1] for request in web.requests] == [b"/a", b"/b?token=t"]
    phases = outcome.phases
    assert phases.connect_us
    assert phases.first_byte_us
    assert phases.transfer_us
    assert phases.resolve_us is None
    assert phases.connect_us + phases.first_byte_us + phases.transfer_us <= outcome.latency_us
    assert len(outcome.notes) == 1
    assert "token" not in outcome.notes[0]


def test_the_request_is_what_is_configured_and_asks_for_one_plain_answer() -> None:
    web = Web()
    ask(web, "/x?y=z", method="POST", headers={"x-check": "1", "host": "shop.example"}, body="{}")
    assert web.requests == [
        (
            b"POST /x?y=z HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: fleetbeat\r\nAccept: */*\r\n"
            b"Accept-Encoding: identity\r\nConnection: close\r\nX-Check: 1\r\nContent-Length: 2\r\n\r\n"
        )
    ]


def test_a_run_with_a_trace_sends_its_id_and_none_when_it_is_not_to() -> None:
    web = Web()
    for trace in (Trace("a" * 32, sampled=True), Trace("c" * 32, sampled=False, propagates=False)):
        with traced(trace):
            ask(web)
    assert f"\r\nTraceparent: 00-{'a' * 32}-{'a' * 16}-01\r\n".encode() in web.requests[0]
    assert b"Traceparent" not in web.requests[1]


def test_the_details_of_a_stranger_are_printable_and_short() -> None:
    outcome = ask(Web(b"\x1b[2J\r\n" + b"\xff" * 5_000))
    assert isinstance(outcome, Down)
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 300


def tcp(talk: Talk, **config: object) -> Outcome:
    async def main() -> Outcome:
        async with serving(talk) as port:
            kind = probe_kind("tcp")
            return await kind.build(kind.config.model_validate({"host": LOOPBACK, "port": port, **config})).run(5.0)

    return asyncio.run(main())


async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail ESMTP\r\n")
    if await reader.readline() == b"QUIT\r\n":
        writer.write(b"221 bye\r\n")


async def chatty(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"bla " * 1_000)
        await writer.drain()


def test_tcp_is_up_when_connected_and_when_the_expected_is_heard() -> None:
    for config in ({}, {"expect": "ESMTP"}, {"send": "QUIT\r\n", "expect": "221"}):
        outcome = tcp(smtp, **config)
        assert isinstance(outcome, Up), outcome
    assert isinstance(tcp(silent), Up)
    assert isinstance(tcp(dripping(b"SSH-2.0", 0.0), expect="SSH-2.0"), Up)


def test_tcp_is_down_when_something_else_is_heard() -> None:
    outcomes = [
        tcp(smtp, send="HELO\r\n", expect="250"),
        tcp(chatty, expect="250"),
        tcp(Web(b""), send="\r\n\r\n", expect="x"),
    ]
    assert [(outcome.reason, outcome.detail) for outcome in outcomes if isinstance(outcome, Down)] == [
        ("unexpected-answer", "closed after 16 bytes: b'220 mail ESMTP\\r\\n'; expected b'250'"),
        ("unexpected-answer", "b'250' is not in the first 65536 bytes"),
        ("closed", "closed after nothing; expected b'x'"),
    ]


def test_nobody_there_is_refused() -> None:
    with socket.socket() as reserved:
        reserved.bind((LOOPBACK, 0))  # bound and not listening: no one else can take the port
        port = reserved.getsockname()[1]
        for name, config in {
            "http": {"url": f"http://{LOOPBACK}:{port}/"},
            "tcp": {"host": LOOPBACK, "port": port},
            "tls": {"host": LOOPBACK, "port": port},
        }.items():
            kind = probe_kind(name)
            outcome = asyncio.run(kind.build(kind.config.model_validate(config)).run(5.0))
            assert isinstance(outcome, Down)
            assert (outcome.reason, outcome.detail) == ("refused", f"127.0.0.1 port {port}: Connection refused")


RECORDS = {
    ("shop.test.", "A"): ["127.0.0.1", "127.0.0.2"],
    ("six.test.", "AAAA"): ["::1"],
    ("shop.test.", "MX"): ["10 Mail.Test."],
    ("shop.test.", "TXT"): ['"v=spf1 " "-all"'],
    ("www.test.", "A"): ["127.0.0.7"],
}


def dns_probe(**config: object) -> Outcome:
    async def main() -> Outcome:
        async with name_server(RECORDS) as (_, port):
            kind = probe_kind("dns")
            return await kind.build(kind.config.model_validate({"server": LOOPBACK, "port": port, **config})).run(5.0)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param({"name": "shop.test"}, "", id="any answer"),
        pytest.param({"name": "shop.test", "expect": ["127.0.0.2"]}, "", id="one of two addresses"),
        pytest.param(
            {"name": "six.test", "type": "AAAA", "expect": ["0:0:0:0::1"]}, "", id="an address in another form"
        ),
        pytest.param({"name": "shop.test", "type": "MX", "expect": ["10 mail.test"]}, "", id="a name in another case"),
        pytest.param({"name": "shop.test", "type": "TXT", "expect": ["v=spf1 -all"]}, "", id="a text in two parts"),
        pytest.param({"name": "gone.test", "rcode": "NXDOMAIN"}, "", id="a name that has to be gone"),
        pytest.param(
            {"name": "shop.test", "expect": ["127.0.0.2", "127.0.0.1"], "match": "exact"}, "", id="just these two"
        ),
        pytest.param(
            {"name": "shop.test", "expect": ["127.0.0.2"], "match": "exact"}, "unexpected-answer", id="one too many"
        ),
        pytest.param({"name": "shop.test", "expect_regex": [r"^127\.", r"\.2$"]}, "", id="regular expressions"),
        pytest.param({"name": "shop.test", "expect_regex": [r"^10\."]}, "unexpected-answer", id="one without a match"),
        pytest.param({"name": "shop.test", "min_ttl_s": 60}, "", id="kept for long enough"),
        pytest.param({"name": "shop.test", "min_ttl_s": 61}, "ttl", id="not kept for long enough"),
        pytest.param({"name": "refused.test"}, "rcode", id="refused"),
        pytest.param({"name": "refused.test", "rcode": "REFUSED"}, "", id="refused, as it should be"),
        pytest.param({"name": "servfail.test", "rcode": "SERVFAIL"}, "", id="a server that fails, as it should"),
        pytest.param({"name": "shop.test", "expect": ["127.0.0.9"]}, "unexpected-answer", id="another address"),
        pytest.param({"name": "shop.test", "type": "NS"}, "unexpected-answer", id="no such record"),
        pytest.param({"name": "gone.test"}, "rcode", id="no such name"),
        pytest.param({"name": "shop.test", "rcode": "NXDOMAIN"}, "rcode", id="a name that should be gone"),
        pytest.param({"name": "shop.test", "server": "169.254.169.254"}, "forbidden-target", id="a metadata server"),
        pytest.param({"name": "shop.test", "tcp": True, "port": 1}, "resolve-failed", id="nobody there"),
    ],
)
def test_dns_answers_as_expected_or_is_down_with_its_reason(config: dict[str, Any], reason: str) -> None:
    outcome = dns_probe(**config)
    assert (outcome.reason if isinstance(outcome, Down) else "") == reason, outcome
    if isinstance(outcome, Down):
        assert (outcome.failure is Failure.VALIDATION) == (reason in {"unexpected-answer", "rcode", "ttl"})


def test_a_name_server_that_is_silent_is_passed_over_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.probes.dns._PATIENCE_S", 0.05)

    class Servers(SystemResolver):
        """A host with two name servers; the first one is not there."""

        def stub(self) -> Stub:
            stub = Stub(configure=False)
            stub.nameservers, stub.port = ["127.0.0.2", LOOPBACK], self.port
            return stub

        port = 0

    async def main() -> Outcome:
        async with name_server(RECORDS) as (_, port):
            resolver = Servers()
            resolver.port = port
            return await DnsProbe(DnsConfig(name="www.test", expect=("127.0.0.7",)), resolver).run(60.0)

    outcome = asyncio.run(main())
    assert isinstance(outcome, Up), outcome
    assert "127.0.0.2" in outcome.notes[0]


def test_a_name_is_looked_up_in_hosts_then_at_the_name_server_along_the_search_list(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Web()) as web, name_server(RECORDS) as (server, port):
            resolver = resolver_at(port, tmp_path, hosts="127.0.0.1 here # comment\n::1 here", search="search test")
            for host, asked in {"here": [], "localhost": [], "shop": [("shop.test.", "A")]}.items():
                server.asked.clear()
                outcome = await TcpProbe(TcpConfig(host=host, port=web), resolver).run(5.0)
                assert isinstance(outcome, Up), outcome
                assert server.asked == asked

    asyncio.run(main())


def test_the_next_address_of_a_name_is_tried_when_one_refuses(tmp_path: Path) -> None:
    async def main() -> Outcome:
        async with serving(Web()) as port:
            resolver = resolver_at(1, tmp_path, hosts="127.0.0.2 both\n127.0.0.1 both")
            return await TcpProbe(TcpConfig(host="both", port=port), resolver).run(5.0)

    outcome = asyncio.run(main())
    assert isinstance(outcome, Up), outcome
    assert outcome.notes[0] == "both is 127.0.0.2, 127.0.0.1"
    assert outcome.notes[1].endswith("Connection refused; the next address is tried")


def test_an_ipv6_address_is_probed_like_any_other() -> None:
    async def main() -> Outcome:
        async with serving(silent, host="::1") as port:
            return await TcpProbe(TcpConfig(host="::1", port=port)).run(5.0)

    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this host has no IPv6")
    assert isinstance(asyncio.run(main()), Up)
