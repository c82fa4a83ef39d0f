"""A run may be cancelled at every await: whatever it has opened by then is given back, in each kind of probe."""

import asyncio
import datetime as dt
import gc
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.probes.base import Probe
from agents.probes.disk import DiskConfig, DiskProbe
from agents.probes.dns import DnsConfig, DnsProbe
from agents.probes.http import HttpConfig, HttpProbe
from agents.probes.icmp import IcmpConfig, IcmpProbe
from agents.probes.ping import CannotPingError, check_may_ping
from agents.probes.process import ProcessConfig, ProcessProbe
from agents.probes.tcp import TcpConfig, TcpProbe
from agents.probes.tls import TlsConfig, TlsProbe
from tests.integration.probe_servers import (
    LOOPBACK,
    OK,
    Certificate,
    Web,
    make_certificate,
    name_server,
    open_files,
    redirect,
    resolver_at,
    serving,
)

DEADLINE_S = 30.0
MOST_AWAITS = 200
PATIENCE_S = 30.0  # of a busy machine, where a thread may take long to end

Scene = AbstractAsyncContextManager[Probe]
Play = Callable[[Path, Certificate], Scene]


class Stepped:
    """A coroutine that is driven one await after the other, and gets CancelledError instead of the k-th answer."""

    def __init__(self, inner: Coroutine[Any, Any, object], cancel_at: int) -> None:
        self._inner = inner
        self._cancel_at = cancel_at
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, object]:
        return self._steps()

    def _steps(self) -> Generator[Any, Any, object]:
        task = asyncio.current_task()
        assert task is not None
        to_send: object = None
        while True:
            try:
                waited_for = self._inner.send(to_send)
            except StopIteration as done:
                return done.value
            self.awaits += 1
            if self.awaits == self._cancel_at:
                # As from outside: asked for while it waits, so that it arrives at this very await.
                task.cancel()
            to_send = yield from _through(self._inner, waited_for)


def _through(inner: Coroutine[Any, Any, object], waited_for: object) -> Generator[Any, Any, object]:
    """Waits for what the probe waits for; an exception is thrown into the probe, where it waits."""
    while True:
        try:
            return (yield waited_for)
        except BaseException as cause:  # noqa: BLE001 - all of them are the probe's
            waited_for = inner.throw(cause)


@asynccontextmanager
async def http(folder: Path, certificate: Certificate) -> AsyncIterator[Probe]:
    """A redirect from plain http with a name to resolve, on to TLS."""
    web, tls = Web(), Web(OK)
    records = {("shop.test.", "A"): [LOOPBACK], ("localhost.test.", "A"): [LOOPBACK]}
    async with serving(web) as port, serving(tls, certificate.server) as tls_port, name_server(records) as (_, dns):
        web.answer = redirect(f"https://localhost:{tls_port}/")
        config = {"url": f"http://shop.test:{port}/", "tls": {"ca_file": certificate.certificate}}
        yield HttpProbe(HttpConfig.model_validate(config), resolver_at(dns, folder))


@asynccontextmanager
async def tcp(_: Path, __: Certificate) -> AsyncIterator[Probe]:
    async with serving(Web(OK)) as port:
        yield TcpProbe(TcpConfig(host=LOOPBACK, port=port, send="GET / HTTP/1.0\r\n\r\n", expect="ok"))


@asynccontextmanager
async def tls(_: Path, certificate: Certificate) -> AsyncIterator[Probe]:
    async with serving(Web(OK), certificate.server) as port:
        yield TlsProbe(TlsConfig(host="localhost", port=port, ca_file=certificate.certificate))


def dns(*, over_tcp: bool) -> Play:
    @asynccontextmanager
    async def play(_: Path, __: Certificate) -> AsyncIterator[Probe]:
        # The port of TCP first: those are what others may have, and UDP takes the same.
        async with (
            serving(lambda *streams: server.over_tcp(*streams)) as port,  # noqa: PLW0108 - there is none yet
            name_server({("shop.test.", "A"): [LOOPBACK]}, port) as (server, _own),
        ):
            config = {"name": "shop.test", "server": LOOPBACK, "port": port, "tcp": over_tcp}
            yield DnsProbe(DnsConfig.model_validate(config))

    return play


@asynccontextmanager
async def icmp(_: Path, __: Certificate) -> AsyncIterator[Probe]:
    try:
        check_may_ping()
    except CannotPingError as cause:
        pytest.skip(str(cause))
    yield IcmpProbe(IcmpConfig(host=LOOPBACK, interval_ms=1))


@asynccontextmanager
async def disk(folder: Path, _: Certificate) -> AsyncIterator[Probe]:
    yield DiskProbe(DiskConfig(path=folder, min_free_percent=0, min_free_inodes_percent=0))


@asynccontextmanager
async def process(_: Path, __: Certificate) -> AsyncIterator[Probe]:
    yield ProcessProbe(ProcessConfig(name="nobody", min_count=0))


PLAYS: dict[str, Play] = {
    "http over a redirect to https": http,
    "tcp": tcp,
    "tls": tls,
    "dns over udp": dns(over_tcp=False),
    "dns over tcp": dns(over_tcp=True),
    "icmp": icmp,
    "disk": disk,
    "process": process,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    day = dt.timedelta(days=1)
    return make_certificate(tmp_path_factory.mktemp("good"), "localhost", (-day, 30 * day))


async def cancelled_at_every_await(play: Play, folder: Path, certificate: Certificate) -> int:
    """How many awaits a run has; each was cancelled once, and nothing was left of any run."""
    async with play(folder, certificate) as probe:
        await probe.run(DEADLINE_S)  # what is loaded once, such as contexts, is loaded now
        for awaits in range(1, MOST_AWAITS):
            before = await quiet()
            stepped = Stepped(probe.run(DEADLINE_S), awaits)
            run = asyncio.create_task(_all_of(stepped))
            done, _ = await asyncio.wait({run}, timeout=60)
            assert done, f"cancelled at await {awaits}: still runs after a minute"
            if stepped.awaits < awaits:
                return awaits - 1
            assert run.cancelled(), f"cancelled at await {awaits}: {run}"
            del run, stepped, done
            assert await quiet(before) == before, f"left open when cancelled at await {awaits}"
    raise AssertionError(f"more than {MOST_AWAITS} awaits; expected a run to end")


async def _all_of(stepped: Stepped) -> object:
    return await stepped


async def quiet(wanted: tuple[int, int] | None = None) -> tuple[int, int]:
    """(open files, tasks) once servers have seen that their clients are gone, and threads have ended.

    That is when both stand still; or are as wanted, for which there is more time.
    """
    before, until_s = (-1, -1), time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        await asyncio.sleep(0.002)
        now = open_files(), len(asyncio.all_tasks())
        if now == wanted or (wanted is None and now == before):
            return now
        before = now
    return before


@pytest.mark.parametrize("play", PLAYS.values(), ids=PLAYS.keys())
def test_a_run_that_is_cancelled_leaves_nothing_open(play: Play, tmp_path: Path, certificate: Certificate) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        awaits = asyncio.run(cancelled_at_every_await(play, tmp_path, certificate))
        gc.collect()
    assert awaits >= 1


def test_a_probe_that_forgets_its_socket_is_found_out(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PATIENCE_S", 0.1)
    kept: list[socket.socket] = []

    class Forgetful:
        async def run(self, deadline_s: float) -> None:  # noqa: ARG002 - part of the protocol
            kept.append(socket.socket())
            await asyncio.sleep(0)
            kept.pop().close()

    @asynccontextmanager
    async def play(_: Path, __: Certificate) -> AsyncIterator[Any]:
        yield Forgetful()

    with pytest.raises(AssertionError, match="left open when cancelled at await 1"):
        asyncio.run(cancelled_at_every_await(play, tmp_path, certificate))
    kept.pop().close()
