"""The formula of a node's health, 0 to 100. Pure: what was counted in a second comes in, points go out.

Weights, and what a connection and a TIME_WAIT count, are those that a published node agent gives for itself; the rest
is defined here. docs/health.md has all of it in one table.
"""

from dataclasses import dataclass

FULL = 100.0
# What a part weighs.
TCP, MEMORY, SCHEDULING = 40, 30, 30
# What the balance of connections gains and loses.
ESTABLISHED_ADDS, TIME_WAIT_TAKES = 5, 1
# No point is left when a tenth of all segments sent had to be sent again.
WORST_LOSS = 0.1
# Shares of fewer than this are noise: one lost segment of three is no bad network.
LEAST_SENT, LEAST_ASKED = 100, 10
# Without a measure of stalls, memory is short from here on.
LEAST_AVAILABLE = 0.1


@dataclass(frozen=True, slots=True)
class TcpSecond:
    """TCP of a host, in events a second, 0 or more; None for what is not known."""

    established: float
    time_wait: float | None
    """Connections that entered TIME_WAIT."""
    sent: float
    retransmitted: float
    """Segments, among those `sent`."""
    accepted: float
    dropped: float | None
    """Connections that came in and found no room."""


def tcp_points(second: TcpSecond) -> float:
    """The worst of three: the balance of connections, what arrives of what is sent, and who is let in."""
    points = [FULL * (1 - second.retransmitted / max(second.sent, LEAST_SENT) / WORST_LOSS)]
    if second.time_wait is not None:
        points.append(FULL + ESTABLISHED_ADDS * second.established - TIME_WAIT_TAKES * second.time_wait)
    if second.dropped is not None:
        points.append(FULL * (1 - second.dropped / max(second.accepted + second.dropped, LEAST_ASKED)))
    return _within(min(points))


def stall_points(stalled: float) -> float:
    """`stalled`: the share of time, 0 to 1, in which something waited: for memory, or for a processor."""
    return _within(FULL * (1 - stalled))


def available_points(available: float) -> float:
    """`available`: the share of memory, 0 to 1, that can be had without swapping."""
    return _within(FULL * available / LEAST_AVAILABLE)


def delay_points(running: float, waiting: float) -> float:
    """Of the time that tasks wanted a processor, how much they had one; both in the same unit, 0 or more."""
    wanted = running + waiting
    return FULL if wanted <= 0 else _within(FULL * running / wanted)


def health_score(tcp: float | None, memory: float | None, scheduling: float | None) -> int | None:
    """The weighted mean of the parts that are known, whose weights then make up for the others; None when none is."""
    parts = [(tcp, TCP), (memory, MEMORY), (scheduling, SCHEDULING)]
    known = [(points, weight) for points, weight in parts if points is not None]
    if not known:
        return None
    return round(sum(points * weight for points, weight in known) / sum(weight for _, weight in known))


def _within(points: float) -> float:
    return min(FULL, max(0.0, points))
