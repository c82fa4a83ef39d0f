"""What an agent's ledger says it took, held against what Kafka's log has of that node: none lost, twice or changed."""

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from schemas.codec import decode
from schemas.records import Heartbeat, ProbeResult
from tests.faults.driver.guests import TOPICS, Sent
from tests.integration.worker_process import read_log

Id = tuple[str, int]


@dataclass(slots=True)
class Ledger:
    """Records by (boot, seq) as they were offered. Of those that are `unsure` nothing says whether they were taken."""

    accepted: dict[Id, bytes] = field(default_factory=dict)
    unsure: dict[Id, bytes] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    order: dict[Id, int] = field(default_factory=dict)
    offers: int = 0
    refused_results: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Runs of a probe that were no success, however they ended; taken ones."""
    refused_in: Counter[str] = field(default_factory=Counter)
    """By boot."""
    goodbyes: dict[str, int] = field(default_factory=dict)
    """What the last heartbeat of a boot says that was dropped in it."""

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        found, offered = cls(), None
        for line in path.read_text(encoding="ascii").splitlines():
            word, *rest = line.split(" ")
            if word == "offer":
                found._end(offered, None)
                offered = base64.b64decode(rest[1])
                continue
            found._end(offered, line)
            offered = None
        found._end(offered, None)
        return found

    def _end(self, value: bytes | None, became: str | None) -> None:
        if value is None:
            return
        record = known(value)
        self.offers += 1
        self.order[record.boot_id, record.seq] = self.offers
        if became is None:
            self.unsure[record.boot_id, record.seq] = value
        elif became == "took":
            self.accepted[record.boot_id, record.seq] = value
            if isinstance(record, ProbeResult):
                self.failed[record.probe] += not record.success
            elif record.state == "GOODBYE":
                self.goodbyes[record.boot_id] = record.dropped
        else:
            self.refused[became.removeprefix("refused ")] += 1
            self.refused_results += isinstance(record, ProbeResult)
            self.refused_in[record.boot_id] += 1


def known(value: bytes | None) -> Heartbeat | ProbeResult:
    record = decode(value)
    assert isinstance(record, Heartbeat | ProbeResult), record
    return record


@dataclass(frozen=True, slots=True)
class Told:
    """The comparison of one agent; `sent` is what the log has of what was taken, each record once."""

    name: str
    ledger: Ledger
    sent: tuple[Sent, ...]
    lost: int
    doubled: int
    strangers: int
    disordered: int

    @property
    def is_exact(self) -> bool:
        return not (self.lost or self.doubled or self.strangers or self.disordered)

    @property
    def summary(self) -> str:
        """In a line."""
        taken, refused = len(self.ledger.accepted), sum(self.ledger.refused.values())
        return (
            f"{self.name}: {taken} taken, {len(self.ledger.unsure)} unsure, {refused} refused; "
            f"{len(self.sent)} in Kafka, {self.lost} lost, {self.doubled} twice, {self.strangers} changed, "
            f"{self.disordered} out of order"
        )

    def faults(self) -> list[str]:
        """Sentences; what was lost is judged by whoever knows what was given up."""
        found = []
        for boot, dropped in self.ledger.goodbyes.items():
            refused = self.ledger.refused_in[boot]
            if dropped < refused:
                found.append(f"{self.name}: its goodbye tells of {dropped} drops; {refused} records were refused")
        for what, count in (
            ("there twice", self.doubled),
            ("none that were taken", self.strangers),
            ("out of order", self.disordered),
        ):
            if count:
                found.append(f"{self.name}: {count} records in Kafka are {what}")
        return found


def told(name: str, ledger: Path, brokers: str, prefix: str) -> Told:
    """Reads both."""
    said = Ledger.read(ledger)
    taken = said.accepted | said.unsure
    found: Counter[Id] = Counter()
    sent: dict[Id, Sent] = {}
    strangers = disordered = 0
    for topic in TOPICS.values():
        last: dict[int, int] = {}
        for each in read_log(brokers, f"{prefix}{topic}"):
            if each.key != name.encode():
                continue
            identity = _identity(each.value)
            if identity is None or taken.get(identity) != each.value:
                strangers += 1
                continue
            found[identity] += 1
            disordered += said.order[identity] < last.get(each.partition, -1)
            last[each.partition] = max(said.order[identity], last.get(each.partition, -1))
            record = known(each.value)
            sent.setdefault(identity, Sent(record, None, topic, each.partition, each.offset, each.append_ms))
    lost = sum(identity not in found for identity in said.accepted)
    doubled = sum(found.values()) - len(found)
    return Told(name, said, tuple(sent.values()), lost, doubled, strangers, disordered)


def _identity(value: bytes | None) -> Id | None:
    try:
        record = known(value)
    except Exception:  # noqa: BLE001 - damaged in whatever way
        return None
    return record.boot_id, record.seq


def served_or_said(told_of: Iterable[Told]) -> Counter[str]:
    """How many good answers each probe has told of, taken or refused."""
    found: Counter[str] = Counter()
    for each in told_of:
        for value in (*each.ledger.accepted.values(), *each.ledger.unsure.values()):
            record = known(value)
            if isinstance(record, ProbeResult) and record.success:
                found[record.probe] += 1
    return found
