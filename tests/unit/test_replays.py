"""Which signed records come again: the same by definition, in any batches, and after a restart at any commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from random import Random

import numpy as np
import pytest

from streams.core.replays import KEPT_PERIODS, PERIOD_MS, Replays
from streams.core.rollup import SourceBatch

BASE_MS = 1_767_225_600_000


@dataclass(frozen=True)
class Said:
    """A record: `seq` None is one that cannot be read, or is not well signed."""

    at_ms: int
    node: str
    seq: int | None


def frontiers_of(log: Sequence[Said]) -> list[int]:
    return list(accumulate((said.at_ms for said in log), max))


def defined(log: Sequence[Said]) -> set[int]:
    """Offsets of those that come again, as the module's first lines have it."""
    periods = [at // PERIOD_MS for at in frontiers_of(log)]
    return {
        offset
        for offset, said in enumerate(log)
        if said.seq is not None
        and any(
            earlier.seq is not None
            and earlier.node == said.node
            and earlier.seq >= said.seq
            and periods[place] >= periods[offset] - KEPT_PERIODS
            for place, earlier in enumerate(log[:offset])
        )
    }


def draw_log(rng: Random, records: int) -> list[Said]:
    """Nodes that count up, an attacker that says again what was said, brokers whose clocks go back a little."""
    log: list[Said] = []
    at_ms, numbers = BASE_MS + rng.randrange(PERIOD_MS), dict.fromkeys("abc", 0)
    for _ in range(records):
        at_ms += rng.choice((0, 1_000, 9_000, 40_000, -2_000))
        node, heard = rng.choice("abc"), [said for said in log if said.seq is not None]
        if heard and rng.random() < 0.35:
            said = rng.choice(heard[-12:])
            log.append(Said(at_ms, said.node, said.seq))
        else:
            numbers[node] += rng.choice((1, 1, 3))
            log.append(Said(at_ms, node, None if rng.random() < 0.1 else numbers[node]))
    return log


def found(replays: Replays, log: Sequence[Said], begin: int, cuts: Sequence[int]) -> set[int]:
    """Offsets, reading from `begin` on in batches that end at `cuts`."""
    offsets: set[int] = set()
    for first, end in pairwise([begin, *(cut for cut in cuts if cut > begin)]):
        part = log[first:end]
        batch = SourceBatch(0, np.arange(first, end), np.array([said.at_ms for said in part]))
        rows = [row for row, said in enumerate(part) if said.seq is not None]
        boots = [(part[row].node, "boot") for row in rows]
        seqs = [said.seq for said in part if said.seq is not None]
        again = replays.find([batch], np.array(rows, np.int64), boots, seqs)
        offsets |= {first + rows[place] for place in again}
    return offsets


def cuts_of(rng: Random, log: Sequence[Said]) -> list[int]:
    return [*sorted(rng.sample(range(1, len(log)), min(6, len(log) - 1))), len(log)]


@pytest.mark.parametrize("seed", range(60))
def test_they_are_those_of_the_definition_in_any_batches(seed: int) -> None:
    rng = Random(seed)
    log = draw_log(rng, 60)
    replays = Replays()
    replays.open(0, 0, 0)
    assert found(replays, log, 0, cuts_of(rng, log)) == defined(log)


def missed(log: Sequence[Said], rng: Random, *, holds_back: bool) -> set[int]:
    """Offsets of which a reader that was started again, perhaps twice, finds something else than the definition has."""
    frontiers, wrong = [0, *frontiers_of(log)], set[int]()
    commit, furthest = (0, 0), 0
    for _ in range(3):
        begin, replays = commit[0], Replays()
        replays.open(0, *commit)
        needed = begin  # where the first cell begins that is not done with: it moves on as records are read
        for first, end in pairwise(
            sorted({begin, *(cut for cut in cuts_of(rng, log)[: rng.randrange(7)] if cut > begin)})
        ):
            found(replays, log, first, [end])
            needed = rng.randrange(needed, end + 1)
            wanted = needed, frontiers[needed]
            commit = replays.held_back(0, *wanted) if holds_back else wanted
            assert commit[0] <= wanted[0]
            assert commit[1] == frontiers[commit[0]]
        furthest = max(furthest, needed)
        replays = Replays()
        replays.open(0, *commit)
        after = found(replays, log, commit[0], [len(log)])
        wrong |= {offset for offset in after ^ defined(log) if offset >= furthest}
    return wrong


def test_a_restart_finds_the_same_from_the_cells_commit_on_because_the_commit_is_held_back() -> None:
    for seed in range(60):
        rng = Random(seed)
        assert missed(draw_log(rng, 50), rng, holds_back=True) == set(), seed


def test_without_that_a_restart_takes_what_comes_again() -> None:
    """The control: the same logs and restarts, with the commit where the cells begin."""
    wrong = 0
    for seed in range(60):
        rng = Random(seed)
        wrong += bool(missed(draw_log(rng, 50), rng, holds_back=False))
    assert wrong > 50


def test_what_is_kept_is_bounded_by_what_can_still_come_again() -> None:
    replays = Replays()
    replays.open(0, 0, 0)
    log = [Said(BASE_MS + number * 20_000, str(number), 1) for number in range(60)]
    found(replays, log, 0, range(1, 61))
    kept = replays._logs[0]
    assert len(kept.greatest) <= (KEPT_PERIODS + 1) * PERIOD_MS // 20_000
    offset, frontier_ms = replays.held_back(0, 59, log[58].at_ms)
    assert frontier_ms >= log[58].at_ms - (KEPT_PERIODS + 1) * PERIOD_MS
    assert 59 - offset <= (KEPT_PERIODS + 1) * PERIOD_MS // 20_000
    assert len(kept.begins) <= KEPT_PERIODS + 1


def test_records_that_are_read_once_more_are_no_replays() -> None:
    replays = Replays()
    replays.open(0, 0, 0)
    log = [Said(BASE_MS, "a", 1), Said(BASE_MS, "a", 2)]
    assert found(replays, log, 0, [2]) == set()
    assert found(replays, log, 0, [2]) == set()


def test_of_a_partition_without_signatures_the_commit_is_what_it_was() -> None:
    assert Replays().held_back(3, 17, 99) == (17, 99)
