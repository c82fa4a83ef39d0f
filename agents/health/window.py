"""From what the kernel had counted at two moments to the health in between. Pure: texts come in as they were read.

Nothing here raises for what stands in a text: what cannot be understood is not known, and `unknown` says why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agents.health.score import (
    TcpSecond,
    available_points,
    delay_points,
    health_score,
    stall_points,
    tcp_points,
)

SNMP, NETSTAT = "/proc/net/snmp", "/proc/net/netstat"
MEMORY, PROCESSOR, MEMINFO = "/proc/pressure/memory", "/proc/pressure/cpu", "/proc/meminfo"
SCHEDSTAT, OWN_SCHEDSTAT = "/proc/schedstat", "/proc/self/schedstat"
NOT_KNOWN = "-"
_HALF, _WHOLE = 1 << 31, 1 << 32
# The kernel counts in 64 bits at most.
_END = 1 << 64
# A line of /proc/schedstat: cpu0, six counts of events, then time run and waited, ns, and time slices.
_RUN, _WAITED, _FIELDS = 7, 8, 10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the kernel said at a moment: `texts` by path, and why a path has none.

    `events` is (established, entered TIME_WAIT) as a program in the kernel counted them, when there is one.
    """

    at_s: float
    texts: Mapping[str, bytes]
    problems: Mapping[str, str] = field(default_factory=dict)
    events: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Points from 0 to 100, and where they were read."""

    points: float
    source: str


@dataclass(frozen=True, slots=True)
class Health:
    """Of a node, over a window; a part is None when it is not known, and `unknown` says why."""

    tcp: Part | None = None
    memory: Part | None = None
    scheduling: Part | None = None
    unknown: tuple[str, ...] = ()

    @property
    def score(self) -> int | None:
        """0 to 100; None when no part is known."""
        return health_score(*(None if part is None else part.points for part in self.parts()))

    @property
    def source(self) -> str | None:
        """The sources of TCP, memory and scheduling, such as snmp/psi/schedstat; - for one that is not known."""
        parts = self.parts()
        return "/".join(NOT_KNOWN if part is None else part.source for part in parts) if any(parts) else None

    def parts(self) -> tuple[Part | None, Part | None, Part | None]:
        """TCP, memory, scheduling."""
        return self.tcp, self.memory, self.scheduling


class _UnknownError(Exception):
    """Cannot be told from these texts; the message says why."""


def compare(before: Snapshot, now: Snapshot) -> Health:
    """The health between two moments, the first of which is the earlier."""
    span_s = now.at_s - before.at_s
    if span_s <= 0:
        return Health(unknown=("no time went by",))
    window = _Window(before, now, span_s)
    return Health(
        tcp=window.first(window.tcp),
        memory=window.first(window.memory_stalls, window.memory_available),
        scheduling=window.first(window.processor_stalls, window.run_delays, window.own_delays),
        unknown=tuple(window.unknown),
    )


class _Window:
    """Two moments, and ways to read parts from them; each returns a Part or raises _UnknownError."""

    def __init__(self, before: Snapshot, now: Snapshot, span_s: float) -> None:
        self._before = before
        self._now = now
        self._span_s = span_s
        self.unknown: list[str] = []

    def first(self, *ways: Callable[[], Part]) -> Part | None:
        """The first way to read a part that works; when none does, `unknown` gets why the first one did not."""
        why = ""
        for way in ways:
            try:
                return way()
            except _UnknownError as cause:
                why = why or str(cause)
        self.unknown.append(why)
        return None

    def tcp(self) -> Part:
        before, now = (_table(moment, SNMP, b"Tcp:") for moment in (self._before, self._now))
        active, failed, accepted, sent, retransmitted = (
            _grown(before, now, name)
            for name in ("ActiveOpens", "AttemptFails", "PassiveOpens", "OutSegs", "RetransSegs")
        )
        established, time_wait = max(0, active - failed) + accepted, self._netstat("TW", "TWKilled")
        earlier, later, source = self._before.events, self._now.events, "snmp"
        if earlier is not None and later is not None:
            established, time_wait, source = later[0] - earlier[0], later[1] - earlier[1], "ebpf"
        dropped = self._netstat("ListenDrops")
        second = TcpSecond(
            established=established / self._span_s,
            time_wait=None if time_wait is None else time_wait / self._span_s,
            sent=sent / self._span_s,
            retransmitted=retransmitted / self._span_s,
            accepted=accepted / self._span_s,
            dropped=None if dropped is None else dropped / self._span_s,
        )
        return Part(tcp_points(second), source)

    def _netstat(self, *names: str) -> int | None:
        """The sum of what they grew by; None, and a reason in `unknown`, when it cannot be told."""
        try:
            before, now = (_table(moment, NETSTAT, b"TcpExt:") for moment in (self._before, self._now))
            return sum(_grown(before, now, name) for name in names)
        except _UnknownError as cause:
            self.unknown.append(str(cause))
            return None

    def memory_stalls(self) -> Part:
        return Part(stall_points(self._stalled(MEMORY)), "psi")

    def memory_available(self) -> Part:
        sizes = dict(line.split(b":", 1) for line in _text(self._now, MEMINFO).splitlines() if b":" in line)
        total, available = (
            _number(MEMINFO, sizes.get(name, b"").split()[:1]) for name in (b"MemTotal", b"MemAvailable")
        )
        if total <= 0:
            raise _UnknownError(f"{MEMINFO}: MemTotal {total}; expected more than 0")
        return Part(available_points(available / total), "meminfo")

    def processor_stalls(self) -> Part:
        return Part(stall_points(self._stalled(PROCESSOR)), "psi")

    def run_delays(self) -> Part:
        return Part(self._delays(SCHEDSTAT, _all_processors), "schedstat")

    def own_delays(self) -> Part:
        return Part(self._delays(OWN_SCHEDSTAT, _own_times), "self")

    def _stalled(self, path: str) -> float:
        """The share of the window in which something waited."""
        before, now = (_stalled_us(moment, path) for moment in (self._before, self._now))
        return _difference(before, now, path) / 1e6 / self._span_s

    def _delays(self, path: str, times: Callable[[bytes], tuple[int, int]]) -> float:
        before, now = (times(_text(moment, path)) for moment in (self._before, self._now))
        running, waiting = (_difference(was, is_now, path) for was, is_now in zip(before, now, strict=True))
        return delay_points(running, waiting)


def _text(moment: Snapshot, path: str) -> bytes:
    text = moment.texts.get(path)
    if text is None:
        raise _UnknownError(f"{path}: {moment.problems.get(path, 'not read')}")
    return text


def _table(moment: Snapshot, path: str, head: bytes) -> dict[bytes, bytes]:
    """Two lines that begin with `head`: names, and below them values."""
    lines = [line.split() for line in _text(moment, path).splitlines() if line.startswith(head)]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):  # noqa: PLR2004 - names and values
        raise _UnknownError(
            f"{path}: {[len(line) for line in lines]} words in lines of {head.decode()}; expected two alike"
        )
    return dict(zip(*lines, strict=True))


def _grown(before: dict[bytes, bytes], now: dict[bytes, bytes], name: str) -> int:
    key = name.encode()
    was, is_now = (_number(name, [table[key]] if key in table else []) for table in (before, now))
    return _difference(was, is_now, name)


def _stalled_us(moment: Snapshot, path: str) -> int:
    """Of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` the total."""
    for line in _text(moment, path).splitlines():
        if line.startswith(b"some "):
            return _number(path, line.rpartition(b"total=")[2:])
    raise _UnknownError(f"{path}: no line that begins with some")


def _all_processors(text: bytes) -> tuple[int, int]:
    """(run, waited), ns, of all processors."""
    lines = [line.split() for line in text.splitlines() if line.startswith(b"cpu")]
    if not lines or min(map(len, lines)) < _FIELDS:
        raise _UnknownError(f"{SCHEDSTAT}: {len(lines)} processors; expected some, of {_FIELDS} fields each")
    run, waited = (sum(_number(SCHEDSTAT, line[at : at + 1]) for line in lines) for at in (_RUN, _WAITED))
    return run, waited


def _own_times(text: bytes) -> tuple[int, int]:
    """(run, waited), ns, of this process's first thread."""
    words = text.split()
    return _number(OWN_SCHEDSTAT, words[:1]), _number(OWN_SCHEDSTAT, words[1:2])


def _number(where: str, words: Sequence[bytes]) -> int:
    try:
        (word,) = words
        number = int(word)
    except ValueError as cause:
        raise _UnknownError(f"{where}: {b' '.join(words)!r}; expected a number") from cause
    if not -_END < number < _END:
        raise _UnknownError(f"{where}: {number}; expected 64 bits")
    return number


def _difference(before: int, now: int, where: str) -> int:
    """How far a counter went, also over the end of 32 bits; one that went back was set anew."""
    if now >= before:
        return now - before
    if before < _WHOLE and now + _WHOLE - before < _HALF:
        return now + _WHOLE - before
    raise _UnknownError(f"{where}: went back from {before} to {now}")
