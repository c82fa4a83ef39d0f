"""/metrics, /-/healthy, /-/ready, the logs, and what is shown by `fleetbeat probe`."""

import asyncio
import io
import json
import logging
from contextlib import suppress
from http import HTTPStatus

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agents.config import ProbeSpec
from agents.host import Host, fullest_disk
from agents.logs import JsonLines
from agents.probe_command import lines
from agents.probes.base import Down, Outcome, Phase, Phases, Timeout, Up
from agents.run import Prober
from agents.schedule import Skip
from agents.server import MAX_CLIENTS, Page, Server
from agents.telemetry import Sources, Telemetry
from tests.unit.agent_fakes import Answering, ListPublisher, ManualClock, spec


async def unheard(_: ProbeSpec, __: Outcome) -> None:
    """Nobody listens."""


def samples(outcomes: dict[str, Outcome]) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of names) and value of all on the page."""

    async def case() -> dict[tuple[str, ...], float]:
        specs = [spec(name, Answering(outcome)) for name, outcome in outcomes.items()]
        prober = Prober(specs, 2, 10, unheard, ManualClock())
        await prober.run_once()
        prober.skipped[Skip.RUNNING] += 3
        page = Telemetry(Sources(prober, ListPublisher(), "0.1.0")).page().decode()
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    return asyncio.run(case())


def test_metrics_tell_of_each_probe_by_blackbox_names_and_of_the_agent_itself() -> None:
    found = samples(
        {
            "well": Up(
                1_500_000, Phases(resolve_us=1_000, first_byte_us=2_000), 200, cert_expires_ms=1_800_000_000_000
            ),
            "ill": Down("refused", "x", 250_000),
            "slow": Timeout(5_000_000, Phase.CONNECT),
        }
    )
    assert found["probe_success", "fake", "well", "shop"] == 1
    assert found["probe_success", "fake", "ill", "shop"] == 0
    assert found["probe_duration_seconds", "fake", "slow", "shop"] == 5
    assert found["probe_fake_duration_seconds", "fake", "resolve", "well", "shop"] == 0.001
    assert found["probe_fake_duration_seconds", "fake", "processing", "well", "shop"] == 0.002
    assert found["probe_ssl_earliest_cert_expiry", "fake", "well", "shop"] == 1_800_000_000
    assert found["fleetbeat_agent_probe_runs_total", "fake", "timeout"] == 1
    assert found["fleetbeat_agent_probe_skipped_total", "running"] == 3
    assert found["fleetbeat_agent_probe_skipped_total", "queue-full"] == 0
    assert found["fleetbeat_agent_probe_start_delay_seconds_count",] == 3
    assert found["fleetbeat_agent_records_dropped_total", "expired", "heartbeats"] == 0
    assert found["fleetbeat_agent_info", "0.1.0"] == 1
    assert found["process_resident_memory_bytes",] > 0


async def ask(address: str, request: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def _hello() -> Page:
    return Page(HTTPStatus.OK, b"hello\n")


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /hello?a=1 HTTP/1.0\r\n\r\n", b"hello\n"),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"POST /hello HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 405 Method Not Allowed\r\n"),
        (b"POST /hello HTTP/1.1\r\n\r\n", b"Allow: GET, HEAD\r\n"),
        (b"\xff\xfe\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"GET /" + b"a" * 100_000, b""),
    ],
)
def test_the_server_answers_on_its_paths_and_survives_nonsense(request_head: bytes, answer: bytes) -> None:
    async def case() -> None:
        server = Server({"/hello": _hello})
        address = await server.start("127.0.0.1", 0)
        try:
            try:
                got = await ask(address, request_head)
            except ConnectionError:  # it hung up before everything was sent
                got = b""
            assert answer in got
            assert b"hello" in await ask(address, b"GET /hello HTTP/1.1\r\n\r\n")
        finally:
            server.close()

    asyncio.run(case())


def test_idle_clients_do_not_pile_up() -> None:
    async def case() -> None:
        server = Server({"/hello": _hello})
        address = await server.start("127.0.0.1", 0)
        host, _, port = address.rpartition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CLIENTS)]
        try:
            with suppress(ConnectionError):
                assert await ask(address, b"GET /hello HTTP/1.1\r\n\r\n") == b""
        finally:
            for _, writer in idle:
                writer.close()
            server.close()

    asyncio.run(case())


def test_a_log_line_is_one_json_object_whatever_is_in_it() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("agents.test")
    log.addHandler(handler)
    log.warning("a %s", "b\nc", extra={"probe": "home"})
    log.error("failed", exc_info=ValueError("no"))
    log.removeHandler(handler)
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["level"], first["logger"], first["event"], first["probe"]) == (
        "warning",
        "agents.test",
        "a b\nc",
        "home",
    )
    assert second["exception"].endswith("ValueError: no")


def test_the_hosts_facts_are_shares_and_unknown_ones_are_none() -> None:
    clock = ManualClock()
    host = Host(10, clock)
    first = host.facts()
    assert first.cpu_permille is None
    assert first.disk_permille is None
    assert 0 < (first.memory_permille or 0) <= 1_000
    clock.now_s = 10
    assert 0 <= (host.facts().cpu_permille or 0) <= 1_000
    assert 0 <= (fullest_disk() or 0) <= 1_000


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        (Up(2_500, Phases(1_000, 500), 200), ["home: up", "  resolve      1.000 ms", "  connect      0.500 ms"]),
        (
            Down("status", "HTTP 503", 2_500, status_code=503),
            ["home: down (status): HTTP 503", "  in all       2.500 ms"],
        ),
        (Timeout(5_000_000, Phase.FIRST_BYTE), ["home: timeout in phase first byte", "  in all     5,000.000 ms"]),
    ],
)
def test_probe_shows_the_verdict_and_the_phases_that_took_place(outcome: Outcome, shown: list[str]) -> None:
    found = list(lines(spec("home", Answering()), outcome, debug=False))
    assert found[: len(shown)] == shown


def test_probe_shows_with_debug_what_happened_on_the_way() -> None:
    outcome = Up(1_000, notes=("resolved to 192.0.2.1", "certificate of shop.example"))
    assert list(lines(spec("home", Answering()), outcome, debug=True))[-3:] == [
        "  fake probe of shop /, timeout 5 s",
        "  resolved to 192.0.2.1",
        "  certificate of shop.example",
    ]


def test_who_asks_for_the_head_gets_the_head_of_the_answer() -> None:
    async def case() -> tuple[bytes, bytes]:
        server = Server({"/hello": _hello})
        address = await server.start("127.0.0.1", 0)
        try:
            return await ask(address, b"HEAD /hello HTTP/1.1\r\n\r\n"), await ask(
                address, b"GET /hello HTTP/1.1\r\n\r\n"
            )
        finally:
            server.close()

    head, whole = asyncio.run(case())
    assert (head, whole) == (whole.removesuffix(b"hello\n"), head + b"hello\n")
