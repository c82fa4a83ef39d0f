"""Every phase of a probe may hang: it ends as a timeout that names the phase, at the deadline, and lets go of all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents.probes.base import Down, Outcome, Phase, Probe, Timeout
from agents.probes.dns import DnsConfig, DnsProbe
from agents.probes.http import HttpConfig, HttpProbe
from agents.probes.tcp import TcpConfig, TcpProbe
from agents.probes.tls import TlsConfig, TlsProbe
from tests.integration.probe_servers import (
    LOOPBACK,
    Talk,
    blackhole,
    dripping,
    name_server,
    open_files,
    resolver_at,
    serving,
    silent,
)

# A machine that does much else is given more time to get as far as to where it hangs, and none to be late.
DEADLINES_S = (0.3, 1.2, 4.8)
GRACE_S = 1.0  # of a busy machine, where others have the cores; the agent itself gives 0.5 s
WAIT_S = 60.0

Scene = AbstractAsyncContextManager[Probe]
Play = Callable[[Path], Scene]


def http(port: int, scheme: str = "http") -> HttpProbe:
    return HttpProbe(HttpConfig(url=f"{scheme}://{LOOPBACK}:{port}/"))


@asynccontextmanager
async def dead_name_server(folder: Path) -> AsyncIterator[Probe]:
    async with name_server({}) as (_, port):
        yield HttpProbe(HttpConfig(url="http://shop.hang/"), resolver_at(port, folder))


@asynccontextmanager
async def dead_question(_: Path) -> AsyncIterator[Probe]:
    async with name_server({}) as (_server, port):
        yield DnsProbe(DnsConfig.model_validate({"name": "shop.hang", "server": LOOPBACK, "port": port}))


@asynccontextmanager
async def dead_route(_: Path) -> AsyncIterator[Probe]:
    with blackhole() as port:
        yield http(port)


def against(talk: Talk, probe: Callable[[int], Probe]) -> Play:
    @asynccontextmanager
    async def play(_: Path) -> AsyncIterator[Probe]:
        async with serving(talk) as port:
            yield probe(port)

    return play


@dataclass(frozen=True)
class Hanging:
    phase: Phase
    play: Play


CASES = [
    pytest.param(Hanging(Phase.RESOLVE, dead_name_server), id="a name server that is silent"),
    pytest.param(Hanging(Phase.RESOLVE, dead_question), id="a question that is never answered"),
    pytest.param(Hanging(Phase.CONNECT, dead_route), id="packets that go nowhere"),
    pytest.param(Hanging(Phase.TLS, against(silent, lambda port: http(port, "https"))), id="silence in the handshake"),
    pytest.param(
        Hanging(Phase.TLS, against(silent, lambda port: TlsProbe(TlsConfig(host=LOOPBACK, port=port)))),
        id="silence in the handshake of kind tls",
    ),
    pytest.param(
        Hanging(Phase.TLS, against(dripping(b"\x16\x03\x03\x3f\xff\x02"), lambda port: http(port, "https"))),
        id="a handshake byte by byte",
    ),
    pytest.param(Hanging(Phase.FIRST_BYTE, against(silent, http)), id="no answer"),
    pytest.param(
        Hanging(Phase.TRANSFER, against(dripping(b"HTTP/1.1 200 OK\r\nX: "), http)), id="a header byte by byte"
    ),
    pytest.param(
        Hanging(Phase.TRANSFER, against(dripping(b"HTTP/1.1 200 OK\r\n\r\n", 0.005), http)), id="a body byte by byte"
    ),
    pytest.param(
        Hanging(
            Phase.FIRST_BYTE, against(silent, lambda port: TcpProbe(TcpConfig(host=LOOPBACK, port=port, expect="x")))
        ),
        id="no banner",
    ),
    pytest.param(
        Hanging(
            Phase.TRANSFER,
            against(dripping(b"22"), lambda port: TcpProbe(TcpConfig(host=LOOPBACK, port=port, expect="y"))),
        ),
        id="a banner byte by byte",
    ),
]


async def let_go(before: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while open_files() > before:
        assert time.monotonic() < deadline, f"{open_files()} open files; expected {before} as before"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("hanging", CASES)
def test_a_phase_that_hangs_is_a_timeout_of_that_phase(hanging: Hanging, tmp_path: Path) -> None:
    async def main(deadline_s: float) -> str:
        async with hanging.play(tmp_path) as probe:
            began = time.monotonic()
            outcome = await probe.run(deadline_s)
            return differs(outcome, hanging.phase, deadline_s, time.monotonic() - began)

    found = []
    for deadline_s in DEADLINES_S:
        found.append(asyncio.run(main(deadline_s)))
        if not found[-1]:
            return
    pytest.fail("; ".join(found))


def differs(outcome: Outcome, phase: Phase, deadline_s: float, took_s: float) -> str:
    """How it is another outcome than a timeout of the phase at the deadline."""
    if not isinstance(outcome, Timeout) or outcome.phase is not phase:
        return f"{outcome}; expected a timeout in {phase}"
    spent_us = getattr(outcome.phases, f"{phase}_us")
    if not 0 < spent_us <= outcome.after_us:
        return f"{spent_us} µs in {phase}; expected some, and at most {outcome.after_us}"
    late_s = max(took_s, outcome.after_us / 1e6) - deadline_s
    return "" if outcome.after_us >= deadline_s * 1e6 and late_s < GRACE_S else f"{late_s:.3f} s after the deadline"


@pytest.mark.parametrize("hanging", CASES)
def test_a_probe_that_is_cancelled_in_that_phase_ends_at_once_and_leaves_nothing_open(
    hanging: Hanging, tmp_path: Path
) -> None:
    async def main() -> None:
        async with hanging.play(tmp_path) as probe:
            before = open_files()
            await probe.run(0.01)  # once to its end, cut short: nothing is left of that either
            await let_go(before)
            running = asyncio.create_task(probe.run(60.0))
            await asyncio.sleep(0.1)
            running.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert time.monotonic() - began < 10  # of the 60 s that it was given
            await let_go(before)

    asyncio.run(main())


def test_500_names_that_hang_do_not_hold_up_one_that_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        records = {("good.test.", "A"): [LOOPBACK]}
        async with serving(silent) as port, name_server({}) as (_, dead), name_server(records) as (_, alive):
            resolver, other = resolver_at(dead, tmp_path), resolver_at(alive, tmp_path)
            names = [f"name-{place}.hang" for place in range(500)]
            stuck = [
                asyncio.create_task(TcpProbe(TcpConfig(host=name, port=port), resolver).run(30.0)) for name in names
            ]
            await asyncio.sleep(0)
            good = await TcpProbe(TcpConfig(host="good.test", port=port), other).run(25.0)  # before the others end
            assert not isinstance(good, Down | Timeout), good
            assert not any(task.done() for task in stuck)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)

    before = open_files()
    asyncio.run(main())
    assert open_files() <= before


def test_a_deadline_of_nothing_is_a_timeout() -> None:
    outcome = asyncio.run(http(1).run(0.0))
    assert isinstance(outcome, Timeout)


def test_what_is_heard_at_the_moment_of_the_cancellation_is_nobodys_lost_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        for wait_ms in range(12):
            async with serving(lambda _reader, writer: _hang_up(writer)) as port:
                running = asyncio.create_task(http(port).run(5.0))
                await asyncio.sleep(wait_ms / 1_000)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == []


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.write(b"x")
    writer.transport.abort()
