"""Targets of real files, a real web server and a real name server; and an agent's probes of many of them at once."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from agents.clock import SystemClock
from agents.config import ProbeSpec, load_agent
from agents.probes.base import Outcome, Up
from agents.run import Prober
from agents.targets.discovery import Discovery
from agents.targets.settings import DnsSdFile, HttpSdFile
from agents.targets.sources import DiscoveryError, DnsSource, FileSource, HttpSource, Source
from schemas.records import Label
from tests.integration.probe_servers import LOOPBACK, OK, Web, name_server, redirect, resolver_at, serving

GROUPS = [{"targets": ["a:1", "b:2"], "labels": {"team": "shop"}}, {"targets": ["c:3"]}]


def write(path: Path, text: str, changed: int) -> None:
    """Its time of change is one that no other writing had."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (changed, changed))


async def addresses(source: Source) -> list[str]:
    return [target.address for target in (await source.find()).targets]


def test_files_are_read_again_when_they_change_and_a_bad_one_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        source = FileSource(tmp_path / "*.json")
        assert await addresses(source) == []
        write(tmp_path / "one.json", json.dumps(GROUPS), 1)
        write(tmp_path / "two.json", json.dumps([{"targets": ["d:4"]}]), 1)
        write(tmp_path / "other.yaml", "nonsense", 1)
        found = await source.find()
        assert [target.address for target in found.targets] == ["a:1", "b:2", "c:3", "d:4"]
        assert found.targets[0].labels == (Label("team", "shop"),)
        assert await source.find() is found  # nothing has changed: nothing was read
        (tmp_path / "two.json").unlink()
        assert await addresses(source) == ["a:1", "b:2", "c:3"]
        for place, text in enumerate(("{", "{}", '[{"targets": 3}]', "[" * 100_000)):
            write(tmp_path / "one.json", text, 2 + place)
            with pytest.raises(DiscoveryError, match=r"\*\.json: one\.json: "):
                await source.find()

        yaml = FileSource(tmp_path / "list.yml")
        with pytest.raises(DiscoveryError, match="No such file"):
            await yaml.find()
        write(tmp_path / "list.yml", "- targets: [a:1]\n  labels: {team: shop}\n- targets: ['[::1]:2']\n", 1)
        assert await addresses(yaml) == ["a:1", "[::1]:2"]
        write(tmp_path / "list.yml", "- targets: [a:1\n", 2)
        with pytest.raises(DiscoveryError, match=r"list\.yml: not YAML"):
            await yaml.find()

    asyncio.run(main())


def answer(body: object, status: str = "200 OK") -> bytes:
    text = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


def test_a_url_is_asked_with_its_token_and_what_is_no_answer_is_an_error(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("c0ffee", encoding="utf-8")
    token.chmod(0o600)

    async def main() -> None:
        web, stranger = Web(answer(GROUPS)), Web(answer([]))
        async with serving(web) as port, serving(stranger) as other:
            source = HttpSource(HttpSdFile(url=f"http://{LOOPBACK}:{port}/targets", bearer_file=token))
            assert await addresses(source) == ["a:1", "b:2", "c:3"]
            assert b"GET /targets HTTP/1.1" in web.requests[0]
            assert b"Authorization: Bearer c0ffee" in web.requests[0]
            for wrong, said in {
                answer([], "503 Busy"): "status 503; expected 200",
                answer({"targets": []}): "the answer: dict; expected a list of target groups",
                OK: "the answer: Expecting value",
                b"": "closed without an answer",
                redirect("http://169.254.169.254/"): "link-local",
            }.items():
                web.answer = wrong
                with pytest.raises(DiscoveryError, match=said):
                    await source.find()
            web.answer = redirect(f"http://{LOOPBACK}:{other}/")
            assert await addresses(source) == []
            assert b"Authorization" not in stranger.requests[0]
            token.chmod(0o644)
            with pytest.raises(
                DiscoveryError, match=r"^bearer_file .*: mode 0644: others can get at it; expected 0600"
            ):
                await source.find()

        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        async with serving(silent) as port:
            source = HttpSource(HttpSdFile(url=f"http://{LOOPBACK}:{port}/", timeout_s=0.1))
            with pytest.raises(DiscoveryError, match=r"no answer within 0\.1 s"):
                await source.find()

    asyncio.run(main())


def test_names_are_targets_by_their_records(tmp_path: Path) -> None:
    records = {
        ("_web._tcp.test.", "SRV"): ["0 5 8080 two.test.", "0 5 80 one.test."],
        ("shop.test.", "A"): ["127.0.0.2", "127.0.0.1"],
        ("shop.test.", "AAAA"): ["::1"],
    }

    async def main() -> None:
        async with name_server(records) as (_, port):
            resolver = resolver_at(port, tmp_path)
            for settings, found in (
                (DnsSdFile(names=("_web._tcp.test",)), ["one.test:80", "two.test:8080"]),
                (DnsSdFile(names=("shop.test",), type="A", port=9), ["127.0.0.1:9", "127.0.0.2:9"]),
                (DnsSdFile(names=("shop.test",), type="AAAA", port=9), ["[::1]:9"]),
            ):
                assert await addresses(DnsSource(settings, resolver)) == found
            for name in ("gone.test", "servfail.test", "shop.hang"):
                with pytest.raises(DiscoveryError, match=name):
                    await DnsSource(DnsSdFile(names=(name,), timeout_s=0.2), resolver).find()

    asyncio.run(main())


def test_many_targets_of_a_file_are_probed_by_few_workers(tmp_path: Path) -> None:
    """Real sockets to 400 addresses of loopback; a tenth of them are closed, and are found to be."""
    config = tmp_path / "agent.yaml"
    reports: Counter[tuple[str, bool]] = Counter()

    async def report(spec: ProbeSpec, outcome: Outcome) -> None:
        reports[spec.endpoint, isinstance(outcome, Up)] += 1

    async def main() -> None:
        async with serving(Web(OK), host="0.0.0.0") as port:
            hosts = [f"127.0.{n // 200 + 1}.{n % 200 + 1}" for n in range(400)]
            targets = [f"{host}:{port if place % 10 else 1}" for place, host in enumerate(hosts)]
            write(tmp_path / "targets.json", json.dumps([{"targets": targets}]), 1)
            config.write_text(
                f"probes: [{{name: many, service: s, every_s: 1, targets: {{files: [{tmp_path}/targets.json]}},"
                ' tcp: {host: "{host}", port: "{port}"}}]\n',
                encoding="utf-8",
            )
            discovery = Discovery(load_agent(config).targeted, lambda: None, SystemClock())
            await discovery.run_once()
            await Prober(discovery.specs, 16, 1_000, report, SystemClock()).run_once()
            assert reports == {(target, place % 10 != 0): 1 for place, target in enumerate(targets)}

    asyncio.run(main())
