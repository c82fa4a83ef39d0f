"""Whether the loss of a zone was one outage, in the views and in telemetry.node_states, and not an alarm a node."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from infra.oracle.judge import Verdict
from infra.oracle.sightings import HEARD_WITHIN_MS, complete_within, down_after_ms
from infra.oracle.silences import STILL_SILENT, Silence
from infra.oracle.sources import StateRow
from infra.oracle.watch import Look, Watched

Zone = tuple[str, str]
Span = tuple[int, int]

SMALLEST_ZONE = 10
# The platform speaks of an outage above a fifth. Clearly above it an outage is due, clearly below there must be none,
# and what lies between is not judged: at the edge it depends on the moment at which the platform looks.
CLEARLY_LOST = 0.26
CLEARLY_NOT = 0.15
# So long it must be clear: between two looks of the platform.
SURELY_MS = 1_000
# Beside nodes that are SUSPECT those count that are DOWN only just: for at least so long.
JUST_DOWN_MS = 5_000
# Once a node is DOWN, this much later its record is in Kafka.
ANNOUNCED_WITHIN_MS = 3_000
_LEAST_GRACE_MS = 1_000


def judge_outages(verdict: Verdict, found: Sequence[Silence], watched: Watched, rows: Sequence[StateRow]) -> None:
    """`rows` are those of telemetry.node_states up to the end of the fleet."""
    interval_ms = watched.beats.interval_ms
    sizes = Counter(watched.beats.zones)
    until_ms = max((one.from_ms for one in found), default=0)  # the last heartbeat of all: then the fleet ends
    lost = _spans_of_outages([row for row in rows if row.kind == "ZONE"])
    for zone, size in sorted(sizes.items()):
        here = [one for one in found if one.zone == zone and not one.goodbye]
        expected = expected_outages(here, size, interval_ms, until_ms)
        if expected is None:
            verdict.zones_unclear += 1
            continue
        for where, count in (("node_states", len(lost.get(zone, ()))), ("/fleet", _runs(watched.looks, zone))):
            if count != expected:
                verdict.differ("outages", f"{'/'.join(zone)}: {count} outages in {where}; expected {expected}")
        verdict.outages += expected
    alarms = [row for row in rows if row.kind == "NODE" and row.state == "DOWN"]
    _judge_alarms(verdict, alarms, found, lost)
    bound_ms = down_after_ms(interval_ms) + ANNOUNCED_WITHIN_MS
    alone = [one for one in found if one.zone not in lost and one.from_ms + bound_ms <= until_ms]
    due = [one for one in alone if complete_within(watched.looks, one.from_ms + bound_ms, one.to_ms)]
    _judge_due(verdict, alarms, due)


def expected_outages(here: Sequence[Silence], size: int, interval_ms: int, until_ms: int) -> int | None:
    """How often a zone of that many nodes was lost until then; None when that cannot be said from outside."""
    if size < SMALLEST_ZONE:
        return 0
    suspect_ms = 2 * interval_ms + max(_LEAST_GRACE_MS, interval_ms // 10)
    counts_ms = down_after_ms(interval_ms) + JUST_DOWN_MS
    surely = [(one.from_ms + suspect_ms, min(one.to_ms, one.from_ms + counts_ms, until_ms)) for one in here]
    perhaps = [(one.from_ms + suspect_ms, min(one.to_ms + HEARD_WITHIN_MS, until_ms)) for one in here]
    clear = [span for span in above(surely, CLEARLY_LOST * size) if span[1] - span[0] >= SURELY_MS]
    outages = 0
    for begin, end in above(perhaps, CLEARLY_NOT * size):
        if not any(begin <= span[0] < end for span in clear):
            return None
        outages += 1
    return outages


def above(spans: Iterable[Span], threshold: float) -> list[Span]:
    """When more spans are open than the threshold says, as spans."""
    steps: Counter[int] = Counter()
    for begin, end in spans:
        if begin < end:
            steps[begin] += 1
            steps[end] -= 1
    found, open_now, since = [], 0, 0
    for moment in sorted(steps):
        before, open_now = open_now, open_now + steps[moment]
        if before <= threshold < open_now:
            since = moment
        elif open_now <= threshold < before:
            found.append((since, moment))
    return found


def _spans_of_outages(rows: Iterable[StateRow]) -> dict[Zone, list[Span]]:
    """Of each zone, from the record that says OUTAGE to the next record about it."""
    spans: dict[Zone, list[Span]] = defaultdict(list)
    open_since: dict[Zone, int] = {}
    for row in sorted(rows, key=lambda row: row.received_ms):
        if row.state == "OUTAGE":
            open_since.setdefault(row.zone, row.received_ms)
        elif row.zone in open_since:
            spans[row.zone].append((open_since.pop(row.zone), row.received_ms))
    for zone, begun in open_since.items():
        spans[zone].append((begun, STILL_SILENT))
    return dict(spans)


def _runs(looks: Iterable[Look], zone: Zone) -> int:
    """How often an outage began in the views."""
    shown = [zone in look.outages for look in looks]
    return sum(now and not before for before, now in zip([False, *shown], shown, strict=False))


def _judge_alarms(
    verdict: Verdict, alarms: Sequence[StateRow], found: Iterable[Silence], lost: Mapping[Zone, Sequence[Span]]
) -> None:
    """Nodes are announced as DOWN for a silence of theirs, once, and not while their zone is lost."""
    begun = {(one.node_id, one.from_ms) for one in found if not one.goodbye}
    told = Counter((row.subject, row.last_seen_ms) for row in alarms)
    verdict.alarms = len(alarms)
    for (node_id, since_ms), count in sorted(told.items()):
        if (node_id, since_ms) not in begun:
            verdict.differ("alarms", f"{node_id} was announced as DOWN since {since_ms}; it was not silent then")
        if count > 1:
            verdict.differ("alarms", f"{node_id} was announced as DOWN {count} times since {since_ms}; expected once")
    for row in alarms:
        # The records of one moment stand in several partitions, in any order.
        if any(begin <= row.received_ms < end - SURELY_MS for begin, end in lost.get(row.zone, ())):
            verdict.differ("alarms", f"{row.subject} was announced as DOWN while {'/'.join(row.zone)} was lost")


def _judge_due(verdict: Verdict, alarms: Iterable[StateRow], due: Iterable[Silence]) -> None:
    told = {(row.subject, row.last_seen_ms) for row in alarms}
    for one in due:
        if not one.goodbye and (one.node_id, one.from_ms) not in told:
            verdict.differ("alarms", f"{one.node_id}, silent since {one.from_ms}, was never announced as DOWN")
