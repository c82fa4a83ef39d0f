"""Up to when everything is in the tables: what may be said, and what may not."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping

import pytest

from streams.core.completeness import InputMark, Tip, Told, complete_to_ms, newer
from streams.core.table import Heading, SloTable

FRONTIER, NOW = 1_000, 9_000


def told(applied: int | None = None, read_up_at_ms: int = 0, frontier: int | None = FRONTIER) -> Told:
    return Told({} if frontier is None else {0: frontier}, {} if applied is None else {0: applied}, read_up_at_ms)


@pytest.mark.parametrize(
    ("table", "tip", "complete"),
    [
        pytest.param(told(9), None, FRONTIER, id="nobody knows how far the log goes"),
        pytest.param(told(None, frontier=None), None, 0, id="never heard of"),
        pytest.param(told(9), Tip(10, NOW), NOW, id="all of it is here"),
        pytest.param(told(15), Tip(10, NOW), NOW, id="and more"),
        pytest.param(told(8), Tip(10, NOW), FRONTIER, id="the last record is missing"),
        pytest.param(told(None), Tip(10, NOW), FRONTIER, id="the table was told nothing since it is here"),
        pytest.param(told(None, frontier=None), Tip(0, NOW), NOW, id="a partition that never had a record"),
        pytest.param(told(9), Tip(10, 500), FRONTIER, id="an old tip takes nothing back"),
        pytest.param(told(None, 7_000), Tip(10, NOW, 6_000), NOW, id="earlier owners' words have been read"),
        pytest.param(told(None, 5_999), Tip(10, NOW, 6_000), FRONTIER, id="they have perhaps not"),
        pytest.param(told(None, 7_000), Tip(10, NOW), FRONTIER, id="this owner's words have perhaps not"),
    ],
)
def test_complete_means_that_nothing_is_missing(table: Told, tip: Tip | None, complete: int) -> None:
    assert complete_to_ms([table], {} if tip is None else {0: tip}, [0]) == complete


def test_the_least_complete_partition_and_table_count() -> None:
    tips = {0: Tip(10, NOW), 1: Tip(20, NOW - 1)}
    both = Told({0: 1, 1: 2}, {0: 9, 1: 19})
    assert complete_to_ms([both], tips, [0, 1]) == NOW - 1
    assert complete_to_ms([both, Told({0: 1, 1: 2}, {0: 9})], tips, [0, 1]) == 2
    assert complete_to_ms([both], tips, [0, 1, 2]) == 0
    assert complete_to_ms([], tips, [0, 1]) == 0


def test_of_two_tips_the_later_counts() -> None:
    assert newer(None, Tip(1, 5)) == Tip(1, 5)
    assert newer(Tip(1, 5), Tip(2, 6)) == newer(Tip(2, 6), Tip(1, 5)) == Tip(2, 6)


def test_an_input_is_read_up_to_an_end_it_had_though_more_comes_all_the_time() -> None:
    mark = InputMark()
    seen = []
    for second in range(6):
        mark.look(read_to=10 * second, end=10 * second + 15, at_ms=1_000 * second)
        seen.append(mark.read_up_at_ms)
    assert seen == [0, 0, 0, 0, 2_000, 2_000]
    still = InputMark()
    for second in range(6):
        still.look(read_to=5, end=10, at_ms=1_000 * second)
    assert still.read_up_at_ms == 0


def test_a_part_of_a_flush_does_not_tell_that_the_rest_is_here() -> None:
    table = SloTable(histograms_in_hours=True)
    table._advance(Heading(0, ((0, 40, None),)))
    assert (table.told, table.frontiers) == ({}, {})
    table._advance(Heading(1, ((0, 40, 7_000),)))
    assert (table.told, table.frontiers) == ({0: 40}, {0: 7_000})
    table._advance(Heading(2, ((0, 30, 6_000),)))  # of an owner that stood still
    assert (table.told, table.frontiers) == ({0: 40}, {0: 7_000})


def test_no_claim_is_ever_ahead_of_what_the_table_holds() -> None:
    """A log that is written, read, published, told and folded at random; every claim is checked against the log."""
    further = sum(_one_life(random.Random(seed), complete_to_ms) for seed in range(300))
    assert further > 1_000, "tips never took an answer further than frontiers"


def test_a_claim_by_the_tip_alone_would_be() -> None:
    def by_tip_alone(tables: Collection[Told], tips: Mapping[int, Tip], lanes: Iterable[int]) -> int:
        return max(complete_to_ms(tables, tips, lanes), *[tip.at_ms for tip in tips.values()], 0)

    def lives() -> None:
        for seed in range(300):
            _one_life(random.Random(seed), by_tip_alone)

    with pytest.raises(AssertionError, match="is missing"):
        lives()


def _one_life(rng: random.Random, claim_of: Callable[[Collection[Told], Mapping[int, Tip], Iterable[int]], int]) -> int:
    """How many claims went further than the frontier."""
    appended, published = list[int](), list[int]()  # when each record was, and the offset that each flush has told
    read_to = folded = frontier = further = 0
    now, told_to, tips = 1, -1, dict[int, Tip]()
    for _ in range(60):
        now += rng.randrange(1, 50)
        match rng.randrange(4):
            case 0:
                appended += [now] * rng.randrange(1, 4)
            case 1 if len(appended) > read_to:
                read_to = rng.randrange(read_to, len(appended)) + 1
                published.append(read_to - 1)
            case 2 if folded < len(published):
                told_to = published[folded]
                folded, frontier = folded + 1, appended[told_to]
            case 3 if read_to == len(appended):
                tips[0] = newer(tips.get(0), Tip(read_to, now))
        claim = claim_of([Told({0: frontier}, {0: told_to})], tips, [0])
        assert all(at >= claim for at in appended[told_to + 1 :]), f"complete to {claim}, and something is missing"
        further += claim > frontier
    return further
