"""What was counted becomes records that the contract accepts, and none of it is lost on the way."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.node import Node
from agents.scrape.counts import Reading
from agents.scrape.meters import Meter
from agents.scrape.series import Cell, Delta, Key
from agents.scrape.settings import MAX_WINDOW_S
from agents.scrape.tally import MAX_REQUESTS, MAX_SUM_US, MAX_WINDOW_MS, Tally, request_count
from schemas import rules
from schemas.blocks import BlockReader
from schemas.buckets import BOUNDS_US, bucket_of, is_bound
from schemas.codec import encode
from schemas.records import Label, RequestCount

NOW_MS = 1_800_000_000_000
NODE = Node("web-17", "eu-1", "eu-1a", (), "boot", NOW_MS, 10_000, "0.1.0")
METER = Meter("seconds", True, "shop", "/pay", labels=(Label("team", "web"),))  # noqa: FBT003 - a row of a table
KEY = Key(METER, "/pay")
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "scrape-exporters.md"
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def reading(*deltas: Delta, since_ms: int = NOW_MS, until_ms: int = NOW_MS + 1_000) -> Reading:
    return Reading(since_ms, until_ms, list(deltas))


def records(tally: Tally) -> list[RequestCount]:
    return [request_count(NODE, key, part, seq) for seq, (key, part) in enumerate(tally.take())]


def test_limits_of_the_agent_are_those_that_the_pipeline_checks() -> None:
    ours = (MAX_REQUESTS, MAX_SUM_US, MAX_WINDOW_MS, MAX_WINDOW_S * 1_000)
    assert ours == (rules.MAX_REQUESTS, rules.MAX_SUM_US, rules.MAX_WINDOW_MS, rules.MAX_WINDOW_MS)


def test_pages_of_many_targets_are_one_record_with_the_window_of_all() -> None:
    tally = Tally()
    tally.add(reading(Delta(KEY, True, 3, (Cell(100_000, 3),), 60_000)))  # noqa: FBT003
    tally.add(
        reading(Delta(KEY, False, 2, (Cell(100_000, 1), Cell(250_000, 1)), 200_000), until_ms=NOW_MS + 1_500)  # noqa: FBT003
    )
    (record,) = records(tally)
    assert (record.ts, record.window_ms, record.total, record.good) == (NOW_MS, 1_500, 5, 3)
    assert (record.sum_us, record.max_us) == (260_000, 250_000)
    assert [(one.bucket, one.total, one.good) for one in record.histogram] == [
        (bucket_of(100_000), 4, 3),
        (bucket_of(250_000), 1, 0),
    ]
    assert (record.service, record.endpoint, record.region, record.labels) == ("shop", "/pay", "eu-1", METER.labels)
    assert records(tally) == []


def test_a_window_that_is_too_long_is_said_by_its_end_in_whose_second_it_counts() -> None:
    for since_ms, until_ms, ts, window_ms in (
        (NOW_MS, NOW_MS + 60_000, NOW_MS + 50_000, 10_000),
        (NOW_MS, NOW_MS - 5_000, NOW_MS - 5_001, 1),  # the clock was put back
        (NOW_MS, NOW_MS, NOW_MS - 1, 1),
    ):
        tally = Tally()
        tally.add(reading(Delta(KEY, True, 3), since_ms=since_ms, until_ms=until_ms))  # noqa: FBT003
        (record,) = records(tally)
        assert (record.ts, record.window_ms) == (ts, window_ms)


def rejected(some: list[RequestCount]) -> list[int]:
    """Places of those that a worker would refuse."""
    block = BlockReader("request-counts").read([NODE.id.encode()] * len(some), [encode(record) for record in some])
    return [reject.row for reject in block.rejects]


deltas = st.lists(
    st.tuples(
        st.booleans(),
        st.dictionaries(st.integers(0, 86_400_000_000), st.integers(1, 1_000_000_000), min_size=1, max_size=6),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40)
@given(deltas, st.booleans())
def test_nothing_is_lost_and_every_record_keeps_the_rules_of_its_topic(
    drawn: list[tuple[bool, dict[int, int], float]],
    measured: bool,  # noqa: FBT001
) -> None:
    tally = Tally()
    total = good = sum_us = 0
    for is_good, cells, share in drawn:
        most_us = sum(upper * count for upper, count in cells.items())
        one = Delta(KEY, is_good, sum(cells.values()))
        if measured:
            ordered = tuple(Cell(upper, count) for upper, count in sorted(cells.items()))
            one = Delta(KEY, is_good, sum(cells.values()), ordered, min(most_us, round(most_us * share)))
        tally.add(reading(one))
        total, good, sum_us = total + one.total, good + one.total * is_good, sum_us + one.sum_us
    some: list[RequestCount] = []
    for number, (key, part) in enumerate(tally.take()):
        if number % 3 == 1:  # this one is not taken at first
            tally.put_back(key, part)
        else:
            some.append(request_count(NODE, key, part, len(some)))
    assert sum(record.total for record in some) == total
    assert sum(record.good for record in some) == good
    assert sum(record.sum_us for record in some) == sum_us or max(record.sum_us for record in some) == MAX_SUM_US
    assert len(some) == -(-total // MAX_REQUESTS)
    assert rejected(some) == []


def test_a_threshold_above_a_bound_of_the_exporter_counts_exactly_what_the_exporter_has_up_to_it() -> None:
    """What the how-to says of `latency_us_le`; the bounds are those that client libraries begin with."""
    for bound_s, next_s in zip(BOUNDS_S, (*BOUNDS_S[1:], 30), strict=True):
        bound_us, next_us = round(bound_s * 1e6), round(next_s * 1e6)
        threshold_us = BOUNDS_US[bucket_of(bound_us)]
        assert is_bound(threshold_us)
        assert bound_us <= threshold_us < bound_us * 1.021
        assert bucket_of(bound_us) <= bucket_of(threshold_us) < bucket_of(next_us)
        assert f"| {threshold_us} " in HOW_TO.read_text(encoding="utf-8")


def test_a_record_with_the_sum_or_the_maximum_of_another_one_would_be_refused() -> None:
    """A control: the property above could not fail if no rule ever did."""
    tally = Tally()
    tally.add(reading(Delta(KEY, True, 3, (Cell(100_000, 3),), 60_000)))  # noqa: FBT003
    (record,) = records(tally)
    for wrong in (replace(record, max_us=99_000), replace(record, sum_us=303_682), replace(record, total=4)):
        assert rejected([record, wrong]) == [1]
