"""Targets: what groups of Prometheus mean, and what becomes of a probe's settings for one of them."""

from pathlib import Path
from typing import Any

import pytest

from agents.config import AgentConfig, load_agent
from agents.targets.groups import GroupsError, Target, targets_of
from agents.targets.template import TemplateError, filled, has_holes, sampled
from schemas.documents import DocumentError
from schemas.records import Label


def test_groups_are_read_as_prometheus_does_without_the_labels_that_are_its_own() -> None:
    found = targets_of(
        [
            {"targets": ["10.0.0.1:443", "10.0.0.2:443"], "labels": {"team": "shop", "__meta_zone": "a", "empty": ""}},
            {"targets": ["https://shop.example/x"]},
            {"targets": ["10.0.0.1:443"], "labels": {"team": "other"}},
            {"targets": [], "labels": None},
        ]
    )
    assert found.refused == ()
    assert found.targets == (
        Target("10.0.0.1:443", (Label("team", "other"),)),
        Target("10.0.0.2:443", (Label("team", "shop"),)),
        Target("https://shop.example/x"),
    )


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"targets": ["a b"]}, "'a b'; expected 1 to 255 printable ASCII characters without blanks"),
        ({"targets": [""]}, "''; expected 1 to 255"),
        ({"targets": ["x" * 256]}, "; expected 1 to 255"),
        ({"targets": ["ü:1"]}, "'ü:1'; expected 1 to 255"),
        ({"targets": ["a:1"], "labels": {"1x": "y"}}, "'a:1': label '1x'; expected a name"),
        ({"targets": ["a:1"], "labels": {"x": "y" * 256}}, "'a:1': label 'x'; expected"),
        ({"targets": ["a:1"], "labels": {f"k{n}": "v" for n in range(33)}}, "'a:1': 33 labels; expected at most 32"),
        ({"targets": ["a:1"], "labels": ["x"]}, "'a:1': labels list; expected a mapping"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused_and_the_others_stay(group: object, said: str) -> None:
    found = targets_of([group, {"targets": ["good:1"]}])
    assert found.targets == (Target("good:1"),)
    (refused,) = found.refused
    assert said in refused


@pytest.mark.parametrize("document", [None, {}, "x", [3], [{}], [{"targets": "a:1"}], [{"labels": {}}]])
def test_what_is_no_list_of_groups_is_an_error(document: object) -> None:
    with pytest.raises(GroupsError, match="expected"):
        targets_of(document)


@pytest.mark.parametrize(
    ("settings", "address", "result"),
    [
        ({"url": "https://{target}/up"}, "a:8443", {"url": "https://a:8443/up"}),
        ({"url": "https://{target}/up"}, "a", {"url": "https://a/up"}),
        ({"url": "https://{host}:9/up"}, "[::1]:8443", {"url": "https://[::1]:9/up"}),
        ({"url": "{target}"}, "https://a/b?c", {"url": "https://a/b?c"}),
        ({"host": "{host}", "port": "{port}"}, "[::1]:25", {"host": "::1", "port": 25}),
        ({"host": "{host}", "port": "{port}"}, "https://a/b", {"host": "a", "port": 443}),
        ({"host": "{target}"}, "a", {"host": "a"}),
        ({"expect": {"json": [{"equals": "{host}"}]}}, "a:1", {"expect": {"json": [{"equals": "a"}]}}),
        ({"body": '{"a": {port}}', "n": 3, "b": None}, "a:1", {"body": '{"a": 1}', "n": 3, "b": None}),
        ({"headers": {"Host": "{host}"}}, "a:1", {"headers": {"Host": "a"}}),
    ],
)  # fmt: skip
def test_settings_are_filled_in(settings: dict[str, Any], address: str, result: dict[str, Any]) -> None:
    assert filled(settings, address) == result
    assert has_holes(settings)
    sampled(settings)


@pytest.mark.parametrize(
    ("settings", "address", "said"),
    [
        ({"port": "{port}"}, "a", "'a' has no port; expected host:port"),
        ({"url": "https://{target}/up"}, "https://a/b", "is a URL; expected host:port where {target} is part"),
        ({"url": "https://{target}/up"}, "a/../b", "'a/../b' has no host"),
        ({"url": "https://{target}/up"}, "u:p@a", "'u:p@a' has no host"),
        ({"url": "https://{target}/up"}, "a?b", "'a?b' has no host"),
        ({"bearer_file": "/etc/{host}"}, "a:1", "expected no {target} in the name of a file"),
        ({"header_files": {"x": "/etc/{host}"}}, "a:1", "expected no {target} in the name of a file"),
        ({"tls": {"ca_file": "{target}"}}, "/etc/passwd", "expected no {target} in the name of a file"),
    ],
)
def test_what_is_discovered_chooses_hosts_and_ports_and_nothing_else(
    settings: dict[str, Any], address: str, said: str
) -> None:
    with pytest.raises(TemplateError) as refused:
        filled(settings, address)
    assert said in str(refused.value)


def load(tmp_path: Path, probe: str) -> AgentConfig:
    path = tmp_path / "agent.yaml"
    path.write_text(f"probes:\n  - {{name: shops, service: shop, {probe}}}\n", encoding="utf-8")
    return load_agent(path)


def test_a_probe_with_targets_makes_one_for_each(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        'labels: {team: x, tier: "1"}, targets: {list: ["127.0.0.1:80"], refresh_s: 5}, http: {url: "http://{target}/up"}',
    )
    assert config.probes == ()
    assert config.workers == 512
    (targeted,) = config.targeted
    spec = targeted.spec(Target("10.0.0.1:8080", (Label("team", "y"),)))
    assert (spec.name, spec.kind, spec.service, spec.endpoint) == ("shops", "http", "shop", "10.0.0.1:8080")
    assert spec.key == "shops\0" + "10.0.0.1:8080"
    assert spec.labels == (Label("team", "y"), Label("tier", "1"))
    with pytest.raises(TemplateError, match="33 labels with those of the probe; expected at most 32"):
        targeted.spec(Target("a:1", tuple(Label(f"k{n}", "v") for n in range(31))))
    with pytest.raises(TemplateError, match="url: Value error, "):
        targeted.spec(Target("a:99999"))


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ('targets: {list: ["a:1"]}, tcp: {host: a, port: 1}', ":2:5: probes.0: value {"),
        ('targets: {list: ["a:1"]}, tcp: {host: a, port: 1}', "targets, and no {target}, {host} or {port} in what is"),
        (
            "targets: {}, tcp: {host: '{host}', port: 1}",
            "probes.0.targets: value {}: no targets; expected list, files,",
        ),
        (
            "targets: {list: [a], max_targets: 1}, endpoint: /, tcp: {host: '{host}', port: 1}",
            "endpoint '/' beside targets; expected one",
        ),
        (
            "targets: {list: [a, b], max_targets: 1}, tcp: {host: '{host}', port: 1}",
            "2 in list; expected at most max_targets, 1",
        ),
        (
            "targets: {list: [ok:1, 'a b']}, tcp: {host: '{host}', port: 1}",
            "probes.0.targets.list.1: value 'a b': 'a b'; expected 1 to 255",
        ),
        (
            "targets: {list: [ok:1, nope]}, tcp: {host: '{host}', port: '{port}'}",
            ":2:57: probes.0.targets.list.1: 'nope' has no port; expected host:port",
        ),
        ("targets: {files: [a.json]}, tcp: {host: '{host}', port: 1}", "a.json; expected an absolute path to .json"),
        ("targets: {files: [/a.txt]}, tcp: {host: '{host}', port: 1}", "/a.txt; expected an absolute path to .json"),
        ("targets: {http_sd: {url: 'ftp://a/'}}, tcp: {host: '{host}', port: 1}", "scheme 'ftp'; expected http or"),
        ("targets: {dns: {names: [a], type: A}}, tcp: {host: '{host}', port: 1}", "type A, port None; expected a port"),
        ("targets: {dns: {names: [a], port: 1}}, tcp: {host: '{host}', port: 1}", "type SRV, port 1; expected a port"),
        (
            "targets: {list: [a]}, http: {url: 'http://{host}/', auth: {bearer_file: '/{host}'}}",
            "bearer_file: '/{host}'; expected no {target} in the name of a file",
        ),
        (
            "targets: {list: [a]}, http: {url: 'gopher://{host}/'}",
            "probes.0.http.url: value 'gopher://192.0.2.1/': sch",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, probe: str, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        load(tmp_path, probe)
    assert said in str(refused.value)
