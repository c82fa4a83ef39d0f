"""When a table was told an offset of a source, it holds all of its own up to there: in random worlds with crashes."""

import random
from unittest import mock

import pytest

from streams.core.summaries import NotCaughtUpError
from streams.core.table import Heading, SloTable
from streams.engine import partials
from tests.unit.exactness import LEVELS, PROMISES, draw_log, frontier_of, recompute
from tests.unit.exactness_parts import OBJECTIVES, Owner, StateLostError, rows_of
from tests.unit.exactness_world import RandomWorld

ACTS = 40
SERIES = {f"slo:{objective.id}": objective.series for objective in OBJECTIVES}


class ToldByParts(SloTable):
    """Takes a part of a flush for all of it."""

    def _advance(self, record: Heading) -> None:
        super()._advance(record)
        for source, applied, _ in record.sources:
            self.told[source] = max(self.told.get(source, -1), applied)


class WithThat(RandomWorld):
    table = ToldByParts


def missing(world: RandomWorld, target: int, owner: Owner) -> list[str]:
    """Rows of which a table has less than it was told."""
    table = owner.tables["objectives"]
    told = [log[: table.told.get(source, -1) + 1] for source, log in enumerate(world.log)]
    try:
        found = rows_of(table, owner.index, frontier_of(world.log))
    except NotCaughtUpError:  # it answers nothing yet
        return []
    return [
        f"{owner.name}, told {table.told}: {key} {found.get(key)}, expected {sums} at least"
        for key, sums in recompute(told, PROMISES).items()
        if key[1] in SERIES and world.target_of(SERIES[key[1]]) == target
        if LEVELS[key[0]].holds(key[2], frontier_of(world.log)) and found.get(key, (0,))[0] < sums[0]
    ]


def run(kind: type[RandomWorld], seed: int) -> tuple[int, list[str]]:
    """How many records the tables were told of in the end, and what was ever missing."""
    rng = random.Random(seed)
    world = kind(draw_log(rng, 3, 30), rng)
    for _ in range(ACTS):
        try:
            world.act()
        except StateLostError:
            break
        for target, owner in enumerate(world.owners):
            if wrong := missing(world, target, owner):
                return 0, wrong
    return sum(sum(owner.tables["objectives"].told.values()) for owner in world.owners), []


@pytest.mark.parametrize("worlds", [5, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_what_was_told_is_there(worlds: int) -> None:
    first = random.SystemRandom().randrange(1 << 32)
    print(f"seeds from {first}")
    told = 0
    with mock.patch.object(partials, "MAX_RECORD_BYTES", 3_000):
        for seed in range(first, first + worlds):
            heard, wrong = run(RandomWorld, seed)
            assert wrong == [], f"seed {seed}"
            told += heard
    assert told > worlds


def test_a_part_of_a_flush_would_not_be_enough() -> None:
    with mock.patch.object(partials, "MAX_RECORD_BYTES", 1_000):
        assert any(run(WithThat, seed)[1] for seed in range(200))
