"""Rollup and nodes where signatures are required: forged, old and repeated records are refused, and no others."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from faust.types import TP

from schemas.codec import decode, encode
from schemas.records import DeadLetter
from streams import metrics
from streams.core.liveness.admission import Limits
from streams.core.liveness.table import NodeTable
from streams.core.replays import KEPT_PERIODS, PERIOD_MS
from streams.core.series import Judge, SeriesIndex
from streams.core.signing import Doubt, Keyring
from streams.core.sources import PROBES
from streams.engine.partials import read_partial
from streams.engine.transport import Poll, RawPoll, ResumePoint
from streams.processors import rollup as processor
from streams.processors.dead_letters import Letters
from streams.processors.node_clock import BrokerClock
from streams.processors.node_folding import NodeFolder
from streams.processors.node_parts import Part
from streams.processors.rollup import RollupProcessor
from streams.processors.signature_gate import Signatures
from tests.unit.liveness_world import rows_of
from tests.unit.raw_batches import raw_batches
from tests.unit.signed_records import (
    BEAT,
    KEYRING,
    PROBE,
    START_MS,
    Record,
    again,
    genuine,
    logged,
    results,
    signature,
)
from tests.unit.test_counts_processor import Keeping

PARTITION = TP(PROBES, 0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Keeping:
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 0)
    return Keeping()


def poll_of(records: Sequence[Record], *, raw: bool = False) -> Poll | RawPoll:
    return RawPoll(raw_batches(records), records[0].offset) if raw else Poll(records, records[0].offset)


def require(keyring: Keyring = KEYRING) -> Signatures:
    return Signatures(keyring, refuses=True)


def counted(fake: Keeping, signatures: Signatures | None, *polls: Poll | RawPoll) -> int:
    """How many events a worker counts of these polls, from its commit on."""
    index = SeriesIndex()
    judge = Judge((), index)
    own = RollupProcessor(fake, judge, index, 1, lambda: judge.timeline, (), signatures)  # type: ignore[arg-type]

    async def run() -> None:
        for poll in polls:
            own._pending.append(poll)
            await own.step()

    asyncio.run(run())
    return own._rollup.events


def refused(fake: Keeping) -> dict[int, str]:
    """By offset."""
    return {letter.offset: letter.reason for letter in fake.letters}


def an_attack() -> list[Record]:
    """Ten results of a node and one of another; between them, what somebody else would make of them."""
    good = [genuine(offset, said, 100) for offset, said in enumerate(results(10))]
    other = replace(PROBE, node_id="m", seq=3)
    return [
        *good,
        logged(10, replace(PROBE, seq=10), 100, None),
        logged(11, replace(PROBE, seq=11), 100, signature(replace(PROBE, seq=11), START_MS, by="m")),
        logged(12, replace(PROBE, seq=12, success=False), 100, signature(replace(PROBE, seq=12), START_MS)),
        logged(13, replace(PROBE, seq=13), 100, signature(replace(PROBE, seq=13), START_MS, key_id=9)),
        again(14, good[3], 100),
        replace(genuine(15, other, 100), key=b"n"),
        genuine(16, other, 100),
        again(17, good[9], 70_000),
    ]


REFUSED = {
    10: "unsigned",
    11: "bad-signature",
    12: "bad-signature",
    13: "unknown-signing-key",
    14: "replayed",
    15: "key-mismatch",
    17: "stale-signature",
}


@pytest.mark.parametrize("raw", [False, True], ids=["records", "batches"])
def test_what_a_node_has_not_said_now_is_a_dead_letter_and_its_neighbours_count(fake: Keeping, *, raw: bool) -> None:
    before = {doubt: doubts(doubt) for doubt in Doubt}
    assert counted(fake, require(), poll_of(an_attack(), raw=raw)) == 11
    assert refused(fake) == REFUSED
    assert {letter.offset: letter.value for letter in fake.letters} == {
        offset: an_attack()[offset].value for offset in REFUSED
    }
    found = {doubt: doubts(doubt) - before[doubt] for doubt in Doubt}
    assert {doubt: count for doubt, count in found.items() if count} == {
        Doubt.UNSIGNED: 1,
        Doubt.BAD: 2,
        Doubt.UNKNOWN_KEY: 1,
        Doubt.REPLAYED: 1,
        Doubt.STALE: 1,
    }
    _, cells = read_partial(encode(fake.sent[-1][1]), SeriesIndex())
    assert cells["n"].sum() == 11  # what was published


def doubts(doubt: Doubt, topic: str = PROBES) -> float:
    return float(metrics.DOUBTS.labels(topic, doubt)._value.get())


def test_without_the_rule_all_of_it_counts(fake: Keeping) -> None:
    """The control: what the same records make where nobody looks at signatures, or where they are only checked."""
    assert counted(fake, None, poll_of(an_attack())) == 17
    assert refused(fake) == {15: "key-mismatch"}
    before = doubts(Doubt.REPLAYED)
    assert counted(fake, Signatures(KEYRING, refuses=False), poll_of(an_attack())) == 17
    assert refused(fake) == {15: "key-mismatch"}
    assert doubts(Doubt.REPLAYED) == before + 1


def test_nothing_but_refused_records_moves_the_commit_too(fake: Keeping) -> None:
    unsigned = [logged(offset, said, 0, None) for offset, said in enumerate(results(3))]
    assert counted(fake, require(), poll_of(unsigned)) == 0
    assert refused(fake) == dict.fromkeys(range(3), "unsigned")
    assert PARTITION in fake.consumer.resume_points


def test_a_node_that_is_revoked_is_refused_from_then_on(fake: Keeping) -> None:
    keyring = Keyring(KEYRING.masters, {"n": START_MS + 1_000})
    records = [genuine(offset, said, offset * 500) for offset, said in enumerate(results(4))]
    assert counted(fake, require(keyring), poll_of(records)) == 2
    assert refused(fake) == {2: "revoked-node", 3: "revoked-node"}


def a_replay_behind_sealed_cells() -> list[Record]:
    """A result at every tenth second for five minutes; the one of another node, of 50 s before, is then said again."""
    log = [genuine(seq, replace(PROBE, seq=seq, node_id="m" if seq == 25 else "n"), seq * 10_000) for seq in range(30)]
    return [*log, again(30, log[25], 300_000)]


@pytest.mark.parametrize("held_back", [True, False], ids=["the rule", "without it"])
def test_a_worker_that_is_started_again_still_knows_what_was_said(
    fake: Keeping, monkeypatch: pytest.MonkeyPatch, *, held_back: bool
) -> None:
    if not held_back:
        monkeypatch.setattr("streams.core.replays.Replays.held_back", lambda *place: place[2:])
    *log, replay = a_replay_behind_sealed_cells()
    counted(fake, require(), *(poll_of([record]) for record in log))
    commit = fake.consumer.resume_points[PARTITION]
    assert isinstance(commit, ResumePoint)
    assert commit.frontier >= log[-1].timestamp - (KEPT_PERIODS + 2) * PERIOD_MS
    fake.consumer.committed = {PARTITION: commit}
    assert not fake.letters
    assert counted(fake, require(), poll_of([*log[commit.offset :], replay])) == 30 - commit.offset + (not held_back)
    assert refused(fake) == ({30: "replayed"} if held_back else {})


def folded(signatures: Signatures | None, *polls: Poll | RawPoll) -> tuple[NodeTable, dict[int, str]]:
    limits = Limits(9, 9)
    part = Part(0, limits, NodeTable(limits, 1), BrokerClock(), 0, "owner")
    folder = NodeFolder(signatures)
    for poll in polls:
        folder.fold({0: part}, [poll])
    return part.table, reasons(folder.take_letters())


def reasons(letters: Letters) -> dict[int, str]:
    found = [decode(letter.value) for letter in letters]
    return {letter.offset: letter.reason for letter in found if isinstance(letter, DeadLetter)}


def beats_of_an_attack() -> list[Record]:
    good = [genuine(seq, replace(BEAT, seq=seq, heartbeat_seq=seq), 100) for seq in range(8)]
    goodbye = replace(BEAT, seq=8, heartbeat_seq=8, state="GOODBYE")
    return [
        *good,
        logged(8, goodbye, 100, None),
        logged(9, goodbye, 100, signature(goodbye, START_MS, by="m")),
        again(10, good[2], 100),
        logged(11, replace(BEAT, node_id="ghost"), 100, None),
        genuine(12, replace(BEAT, seq=9, heartbeat_seq=8), 100),
    ]


@pytest.mark.parametrize("raw", [False, True], ids=["records", "batches"])
@pytest.mark.parametrize("together", [True, False], ids=["in one fold", "one by one"])
def test_nodes_are_what_they_have_said_themselves(*, raw: bool, together: bool) -> None:
    attack = beats_of_an_attack()
    polls = [poll_of(attack, raw=raw)] if together else [poll_of([record], raw=raw) for record in attack]
    table, letters = folded(require(), *polls)
    assert letters == {8: "unsigned", 9: "bad-signature", 10: "replayed", 11: "unsigned"}
    rows = rows_of(table)
    assert rows.keys() == {"n"}
    assert (rows["n"]["heartbeats"], rows["n"]["reported"], rows["n"]["lost"]) == (9, 0, 0)


def test_without_the_rule_a_node_can_be_said_to_leave_and_another_one_made_up() -> None:
    """The control."""
    table, letters = folded(None, poll_of(beats_of_an_attack()))
    assert letters == {}
    rows = rows_of(table)
    assert rows.keys() == {"n", "ghost"}
    assert rows["n"]["heartbeats"] == 10
    table, letters = folded(Signatures(KEYRING, refuses=False), poll_of(beats_of_an_attack()))
    assert letters == {}
    assert rows_of(table) == rows
