"""Which objectives judge a slice: a function of the topic `objectives` alone, whoever reads it and whenever.

A *set* holds all objectives of a file. It judges slices from its start on, which its own record decides: what was asked
for, but at least LEAD_MS after the record's append time. Events are at most 5 s ahead of their own append time. So
whoever has read all sets that were appended until LEAD_MS less those 5 s before a record knows the one that judges it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from schemas.event_time import FUTURE_LIMIT_MS
from streams.core.objectives import Objective
from streams.core.slices import SLICE_MS

Objectives = tuple[Objective, ...]

LEAD_MS = 30_000
# Of the time that is left, the larger part is for counting with what was read; the rest is for brokers' clocks that
# differ, and for replicas that lag.
CONFIRMED_FOR_MS = 15_000
SPARE_MS = LEAD_MS - FUTURE_LIMIT_MS - CONFIRMED_FOR_MS
# Events reach back 35 days from their append time, and their topics keep them for less than the rest.
KEPT_MS = 90 * 86_400_000


@dataclass(frozen=True, slots=True)
class Announcement:
    """A record of the topic; `asked_ms` is the earliest start that it asks for, `host` that of who announced it."""

    offset: int
    append_ms: int
    asked_ms: int
    objectives: Objectives
    host: str = ""

    @property
    def start_s(self) -> int:
        """The first slice that it judges, unless it is the first announcement: that one judges all before it too."""
        return -(-max(self.asked_ms, self.append_ms + LEAD_MS) // SLICE_MS)


@dataclass(frozen=True, slots=True)
class Era:
    """A set while it judges: from slice `since_s` to the next era."""

    since_s: int
    offset: int
    objectives: Objectives


@dataclass(frozen=True, slots=True)
class Stretch:
    """One version of an objective from slice `since_s` up to `until_s`; None is for ever."""

    version: str
    since_s: int
    until_s: int | None = None


class Timeline:
    """Eras in ascending order, the first one from slice 0 on. Immutable."""

    def __init__(self, announced: Iterable[Announcement]) -> None:
        """Of two sets that have both started, the later announced one judges."""
        in_order = sorted(announced, key=lambda announcement: announcement.offset)
        eras: list[Era] = []
        for number, announcement in enumerate(in_order):
            since_s = announcement.start_s if number else 0
            while eras and eras[-1].since_s >= since_s:
                eras.pop()  # replaced before it started
            if not eras or eras[-1].objectives != announcement.objectives:  # else two workers said the same
                eras.append(Era(since_s, announcement.offset, announcement.objectives))
        self.eras = tuple(eras)
        self.newest: Objectives | None = in_order[-1].objectives if in_order else None

    @classmethod
    def of(cls, objectives: Sequence[Objective]) -> "Timeline":
        """One set that judges everything."""
        return cls([Announcement(0, 0, 0, tuple(objectives))])

    def era(self, now_ms: int) -> Era:
        """The era of the slice that holds `now_ms`. Raises LookupError when nothing was ever announced."""
        found = next((era for era in reversed(self.eras) if era.since_s * SLICE_MS <= now_ms), None)
        if found is None:
            raise LookupError("no set of objectives was announced")
        return found

    def stretches(self, objective_id: str) -> tuple[Stretch, ...]:
        """When which version of an objective judges, in order; a change of what does not judge makes no new one."""
        found: list[Stretch] = []
        for era, until_s in zip(self.eras, [*(era.since_s for era in self.eras[1:]), None], strict=True):
            objective = next((o for o in era.objectives if o.id == objective_id), None)
            if objective is None:
                continue
            if found and (found[-1].version, found[-1].until_s) == (objective.version, era.since_s):
                found[-1] = Stretch(objective.version, found[-1].since_s, until_s)
            else:
                found.append(Stretch(objective.version, era.since_s, until_s))
        return tuple(found)

    def judge(self, objective_id: str, stretch: Stretch) -> Objective:
        """The objective as it was when a stretch of it began."""
        return next(o for o in self.era(stretch.since_s * SLICE_MS).objectives if o.id == objective_id)

    def ended_before(self, now_ms: int) -> int:
        """Announcements below this offset judge nothing that can still come."""
        return self.era(max(0, now_ms - KEPT_MS)).offset if self.eras else 0


def in_force(stretches: Sequence[Stretch], start_s: int, end_s: int) -> tuple[Stretch, ...]:
    """Those that judge a slice of [start_s, end_s)."""
    return tuple(s for s in stretches if s.since_s < end_s and (s.until_s is None or s.until_s > start_s))


@dataclass(frozen=True, slots=True)
class Announce:
    """The file's objectives differ from the newest set."""

    objectives: Objectives


@dataclass(frozen=True, slots=True)
class Same:
    """The newest set is the file's."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """An earlier set was made from this file, and since then another host has announced one from a newer file."""

    newer_ms: int


def propose(
    objectives: Objectives, file_ms: int, host: str, announced: Sequence[Announcement]
) -> Announce | Same | Outdated:
    """What a worker on `host` does with its file when it starts; `file_ms` is when the file was last written.

    A worker that is restarted on a host that was forgotten must not take back what was announced since. On the same
    host it is somebody's wish.
    """
    in_order = sorted(announced, key=lambda announcement: announcement.offset)
    if not in_order:
        return Announce(objectives)
    newest = in_order[-1]
    if newest.objectives == objectives:
        return Same()
    if (
        newest.host != host
        and file_ms < newest.append_ms
        and any(earlier.objectives == objectives for earlier in in_order[:-1])
    ):
        return Outdated(newest.append_ms)
    return Announce(objectives)


def meaning(objectives: Iterable[Objective]) -> frozenset[tuple[str, str]]:
    """What judging depends on: sets of the same meaning judge alike."""
    return frozenset((objective.id, objective.version) for objective in objectives)


Known = Callable[[], Timeline | None]
"""The timeline, when it is certain that it holds all sets that judge what has been read; else None."""
