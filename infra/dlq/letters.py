"""Which dead letters there are, and which of them are asked for. Pure."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra import InfraError
from schemas.records import DeadLetter, DeadLetterReplay

_PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,10})/(\d{1,19})")
_AGE = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class AskedWronglyError(InfraError, ValueError):
    """An argument cannot be understood; a ValueError, so that the command line answers with status 2."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was. `append_ms` tells a topic from one of the same name that was deleted before it."""

    topic: str
    partition: int
    offset: int
    append_ms: int

    @classmethod
    def of(cls, record: DeadLetter | DeadLetterReplay) -> "Origin":
        """The origin that a letter, or the note about its replay, names."""
        return cls(record.topic, record.partition, record.offset, record.append_ts)

    @property
    def place(self) -> str:
        """TOPIC/PARTITION/OFFSET, as people name it and as the header of a replay has it."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def key(self) -> bytes:
        """The key of the notes about its replay."""
        return f"{self.place}@{self.append_ms}".encode()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Letters to select; what is empty or None selects all. `since_ms` is about the original's append time."""

    topic: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    places: frozenset[str] = frozenset()

    def selects(self, letter: DeadLetter) -> bool:
        """Whether the letter is asked for."""
        return (
            self.topic in (None, letter.topic)
            and self.reason in (None, letter.reason)
            and (self.since_ms is None or letter.append_ts >= self.since_ms)
            and (not self.places or Origin.of(letter).place in self.places)
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter without its bytes; `partition` and `offset` are its own in `dead-letters`."""

    origin: Origin
    reason: str
    detail: str
    detected_by: str
    key: bytes | None
    value_bytes: int
    partition: int
    offset: int


@dataclass(slots=True)
class Inventory:
    """The letters asked for, one an origin: the newest, since two readers, or one twice, may report the same record."""

    wanted: Wanted
    entries: dict[Origin, Entry] = field(default_factory=dict)
    _told_ms: dict[Origin, int] = field(default_factory=dict)

    def add(self, letter: DeadLetter, partition: int, offset: int, told_ms: int) -> None:
        """Takes in a letter that stands at `partition` and `offset`, appended at `told_ms`."""
        if not self.wanted.selects(letter):
            return
        origin = Origin.of(letter)
        if told_ms < self._told_ms.get(origin, 0):
            return
        self._told_ms[origin] = told_ms
        self.entries[origin] = Entry(
            origin, letter.reason, letter.detail, letter.detected_by, letter.key, letter.value_bytes, partition, offset
        )

    def newest(self, limit: int | None = None) -> list[Entry]:
        """At most `limit` letters, the newest original first."""
        newest = sorted(
            self.entries.values(),
            key=lambda entry: (entry.origin.append_ms, entry.origin.topic, entry.origin.partition, entry.origin.offset),
            reverse=True,
        )
        return newest[:limit]


@dataclass(frozen=True, slots=True)
class Group:
    """Letters of one topic and reason; times are append times of the originals."""

    topic: str
    reason: str
    letters: int
    replayed: int
    first_ms: int
    last_ms: int


def groups(entries: Iterable[Entry], replayed: Iterable[Origin]) -> list[Group]:
    """Counts by topic and reason, the largest first."""
    times: dict[tuple[str, str], list[int]] = {}
    done: Counter[tuple[str, str]] = Counter()
    gone_back = set(replayed)
    for entry in entries:
        name = (entry.origin.topic, entry.reason)
        times.setdefault(name, []).append(entry.origin.append_ms)
        done[name] += entry.origin in gone_back
    found = [Group(*name, len(ms), done[name], min(ms), max(ms)) for name, ms in times.items()]
    return sorted(found, key=lambda group: (-group.letters, group.topic, group.reason))


def parse_place(text: str) -> str:
    """TOPIC/PARTITION/OFFSET without leading zeros. Raises AskedWronglyError."""
    match = _PLACE.fullmatch(text)
    if match is None:
        raise AskedWronglyError(f"{text!r}: expected TOPIC/PARTITION/OFFSET, as in probe-results/3/1200")
    return f"{match[1]}/{int(match[2])}/{int(match[3])}"


def parse_since(text: str, now_ms: int) -> int:
    """The moment, in ms, of an age (`2h`) or a time (ISO 8601, in UTC without a zone). Raises AskedWronglyError."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return now_ms - int(age[1]) * _UNIT_MS[age[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise AskedWronglyError(
            f"--since {text!r}: expected an age such as 90s, 15m, 2h, 7d, 2w, or a time such as 2026-01-31T10:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)
