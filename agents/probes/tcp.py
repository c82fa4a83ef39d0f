"""Kind `tcp`: a connection is accepted and, if asked for, what is sent gets the expected answer."""

from typing import Annotated

from pydantic import Field

from agents.probes.base import Outcome, Phase, ProbeKind, Settings
from agents.probes.dial import Conversation, Target, dialled
from agents.probes.resolver import SYSTEM_RESOLVER, Family, Resolver
from agents.probes.settings import Host, Port
from agents.probes.watch import Watch, watched

MAX_ANSWER_BYTES = 64 << 10


class TcpConfig(Settings):
    """`send` goes out first; then `expect` has to be in the first 64 KiB that come back."""

    host: Host
    port: Port
    family: Family = "any"
    send: Annotated[str, Field(max_length=4_096)] | None = None
    expect: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None


class TcpProbe:
    """One TCP service."""

    def __init__(self, config: TcpConfig, resolver: Resolver = SYSTEM_RESOLVER) -> None:
        self._target = Target(config.host, config.port, config.family)
        self._send = (config.send or "").encode()
        self._expect = (config.expect or "").encode()
        self._resolver = resolver

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._ask, deadline_s)

    async def _ask(self, watch: Watch) -> Outcome:
        answer = _Answer(self._expect, watch)
        async with dialled(self._target, answer, self._resolver, watch) as transport:
            if self._send:
                transport.write(self._send)
            if self._expect:
                watch.enter(Phase.FIRST_BYTE)
                await answer.heard
        return watch.up()


class _Answer(Conversation):
    """Reads until it has what is expected."""

    def __init__(self, expect: bytes, watch: Watch) -> None:
        super().__init__()
        self._expect = expect
        self._watch = watch
        self._heard = bytearray()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if not self._heard:
            self._watch.enter(Phase.TRANSFER)
        overlap = max(0, len(self._heard) - len(self._expect))
        self._heard += data
        if self._expect in self._heard[overlap:MAX_ANSWER_BYTES]:
            self.enough()
        elif len(self._heard) >= MAX_ANSWER_BYTES:
            self.refuse("unexpected-answer", f"{self._expect!r} is not in the first {MAX_ANSWER_BYTES} bytes")

    def closed(self) -> None:
        """The service hung up."""
        if self._heard:
            got = f"{len(self._heard)} bytes: {bytes(self._heard[:80])!r}"
            self.refuse("unexpected-answer", f"closed after {got}; expected {self._expect!r}")
        else:
            self.fail("closed", f"closed after nothing; expected {self._expect!r}")


KIND = ProbeKind("tcp", TcpConfig, TcpProbe)
