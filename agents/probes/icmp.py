"""Kind `icmp`: a host answers echo requests, enough of them and soon enough."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean
from typing import Annotated, Self

from pydantic import Field, model_validator

from agents.probes.base import Outcome, Phase, ProbeKind, Settings
from agents.probes.dial import Target, allowed_addresses
from agents.probes.ping import CannotPingError, PingSocket, check_may_ping
from agents.probes.resolver import SYSTEM_RESOLVER, Family, Resolver
from agents.probes.settings import Host
from agents.probes.watch import ProbeFailedError, Watch, explain, watched

_TOKEN_BYTES = 8
_MAX_MS = 3_600_000
# Of the deadline; what has not come back by then is lost, when something has.
_PATIENCE = 0.9


class IcmpConfig(Settings):
    """`packets` echo requests, one every `interval_ms`; latency is the mean of the round trips.

    Without any reply it is a timeout. A reply counts as lost when it has not come by nine tenths of the timeout.
    """

    host: Host
    family: Family = "any"
    packets: Annotated[int, Field(ge=1, le=100)] = 3
    interval_ms: Annotated[float, Field(ge=1, le=60_000)] = 100
    size: Annotated[int, Field(ge=_TOKEN_BYTES, le=65_000)] = 56
    max_loss_percent: Annotated[float, Field(ge=0, lt=100)] = 50
    max_rtt_ms: Annotated[float, Field(gt=0, le=86_400_000)] | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.packets * self.interval_ms > _MAX_MS:
            raise ValueError(f"{self.packets} packets every {self.interval_ms:g} ms; expected at most an hour in all")
        return self


class IcmpProbe:
    """One host."""

    def __init__(self, config: IcmpConfig, resolver: Resolver = SYSTEM_RESOLVER) -> None:
        self._config = config
        self._target = Target(config.host, 0, config.family)
        self._resolver = resolver

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        until_s = asyncio.get_running_loop().time() + deadline_s * _PATIENCE
        return await watched(lambda watch: self._ping(watch, until_s), deadline_s)

    async def _ping(self, watch: Watch, until_s: float) -> Outcome:
        address, *_ = await allowed_addresses(self._target, self._resolver, watch)
        watch.enter(Phase.FIRST_BYTE)
        try:
            opened = PingSocket(address)
        except CannotPingError as cause:
            raise ProbeFailedError("not-permitted", str(cause)) from cause
        with _listening(opened, self._config.packets) as echoes:
            await self._send_all(opened, echoes)
            await echoes.wait(until_s)
        watch.note(f"{address}, {opened.kind} socket: {echoes.summary()}")
        return self._judge(watch, echoes)

    async def _send_all(self, opened: PingSocket, echoes: "_Echoes") -> None:
        filling = bytes(self._config.size - _TOKEN_BYTES)
        for seq in range(self._config.packets):
            if seq:
                await asyncio.sleep(self._config.interval_ms / 1_000)
            echoes.sent(seq)
            try:
                opened.send(seq, echoes.token + filling)
            except OSError as cause:
                echoes.refused(cause)

    def _judge(self, watch: Watch, echoes: "_Echoes") -> Outcome:
        config, trips_us = self._config, echoes.trips_us
        if not trips_us:
            raise ProbeFailedError(*echoes.refusal())
        mean_us = round(fmean(trips_us))
        lost_percent = 100 * (1 - len(trips_us) / config.packets)
        outcome: Outcome
        if lost_percent > config.max_loss_percent:
            expected = f"expected at most {config.max_loss_percent:g} %"
            outcome = watch.invalid("loss", f"{echoes.summary()}: {lost_percent:.0f} % lost; {expected}")
        elif config.max_rtt_ms is not None and mean_us > config.max_rtt_ms * 1_000:
            outcome = watch.invalid("rtt", f"{mean_us / 1_000:.3f} ms; expected at most {config.max_rtt_ms:g}")
        else:
            outcome = watch.up()
        # Not how long it took to send them one after the other: how far away the host is.
        return replace(outcome, latency_us=mean_us, phases=replace(outcome.phases, first_byte_us=mean_us))


class _Echoes:
    """What was sent and what came back."""

    def __init__(self, opened: PingSocket, packets: int) -> None:
        self.token = os.urandom(_TOKEN_BYTES)
        self.trips_us: list[int] = []
        self._opened = opened
        self._packets = packets
        self._sent_at: dict[int, tuple[int, int]] = {}
        self._sent = 0
        self._refusal: OSError | None = None
        self._refusals = 0
        self._any = asyncio.Event()
        self._all = asyncio.Event()

    def sent(self, seq: int) -> None:
        """A request goes out now."""
        self._sent_at[seq] = time.perf_counter_ns(), time.time_ns()
        self._sent += 1

    def refused(self, cause: OSError) -> None:
        """The kernel says no, perhaps on behalf of a router."""
        self._refusal = cause
        self._refusals += 1
        self._any.set()
        self._look()

    def hear(self) -> None:
        """Called by the event loop when there is something."""
        while True:
            try:
                reply = self._opened.receive(_TOKEN_BYTES)
            except BlockingIOError:
                break
            except OSError as cause:
                self.refused(cause)
                break
            # A reply counts once, also when it comes twice; and only with our token, which no stranger can guess.
            if reply is None or reply.token != self.token or (sent := self._sent_at.pop(reply.seq, None)) is None:
                continue
            taken_ns = time.perf_counter_ns() - sent[0]
            if reply.received_ns is not None:  # without the time that it waited for this loop
                taken_ns = min(taken_ns, max(0, reply.received_ns - sent[1]))
            self.trips_us.append(taken_ns // 1_000)
            self._any.set()
        self._look()

    async def wait(self, until_s: float) -> None:
        """Until all have come back; or until then, when something has; else until something does."""
        try:
            async with asyncio.timeout_at(until_s):
                await self._all.wait()
        except TimeoutError:
            await self._any.wait()

    def refusal(self) -> tuple[str, str]:
        """Why there is no reply at all: (reason, detail)."""
        if self._refusal is None:
            return "error", "no reply, and no reason for it"
        return explain(self._refusal)

    def summary(self) -> str:
        """In a sentence."""
        text = f"{self._sent} sent, {len(self.trips_us)} received"
        if not self.trips_us:
            return text
        low, mean, high = min(self.trips_us), fmean(self.trips_us), max(self.trips_us)
        return f"{text}, round trip {low / 1_000:.3f}/{mean / 1_000:.3f}/{high / 1_000:.3f} ms"

    def _look(self) -> None:
        if len(self.trips_us) + self._refusals >= self._packets:
            self._all.set()


@contextmanager
def _listening(opened: PingSocket, packets: int) -> Iterator[_Echoes]:
    loop = asyncio.get_running_loop()
    echoes = _Echoes(opened, packets)
    try:
        loop.add_reader(opened.fileno(), echoes.hear)
        try:
            yield echoes
        finally:
            loop.remove_reader(opened.fileno())
    finally:
        opened.close()


def _build(config: IcmpConfig) -> IcmpProbe:
    try:
        check_may_ping()
    except CannotPingError as cause:
        raise ValueError(str(cause)) from cause
    return IcmpProbe(config)


KIND = ProbeKind("icmp", IcmpConfig, _build)
