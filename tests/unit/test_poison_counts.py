"""Request counts that cannot be: one reason each, on the block path and the slow one, and no victim beside them."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.blocks import BlockReader
from schemas.buckets import BOUNDS_US, BUCKETS, MAX_LATENCY_US, bucket_of, is_bound
from schemas.codec import encode
from schemas.records import BucketCount, RequestCount
from schemas.rules import MAX_REQUESTS, MAX_SUM_US
from tests.unit.test_record_batches import batch

TOPIC = "request-counts"
READER = BlockReader(TOPIC)
MAX = (1 << 63) - 1
NEIGHBOURS = 300
SLOW, QUICK = bucket_of(90_000), bucket_of(400)
HISTOGRAM = (BucketCount(QUICK, 7, 7), BucketCount(SLOW, 3, 1))
GOOD = RequestCount("n-1", 1_000, 1_000, "b", 3, "s", "/", "eu", 10, 8, 272_800, 90_000, HISTOGRAM)
PLAIN = replace(GOOD, histogram=(), sum_us=0, max_us=0)

BAD = {
    "a total of less than nothing": (replace(PLAIN, total=-1, good=-1), "total"),
    "a total beyond all requests": (replace(PLAIN, total=MAX_REQUESTS + 1), "total"),
    "the greatest total": (replace(PLAIN, total=MAX, good=MAX), "total"),
    "more good than there were": (replace(PLAIN, good=11), "good"),
    "good of less than nothing": (replace(PLAIN, good=-1), "good"),
    "a window of no length": (replace(GOOD, window_ms=0), "window_ms"),
    "a window of more than ten seconds": (replace(GOOD, window_ms=10_001), "window_ms"),
    "a window that ends before it begins": (replace(GOOD, window_ms=-1_000), "window_ms"),
    "a sum of less than nothing": (replace(PLAIN, sum_us=-1), "sum_us"),
    "a sum that a month of such would wrap": (replace(PLAIN, sum_us=MAX_SUM_US + 1), "sum_us"),
    "a greatest latency of days": (replace(PLAIN, max_us=MAX_LATENCY_US + 1), "max_us"),
    "a histogram of fewer requests": (replace(GOOD, histogram=HISTOGRAM[:1]), "histogram"),
    "a histogram of fewer good ones": (
        replace(GOOD, histogram=(HISTOGRAM[0], BucketCount(SLOW, 3, 0))),
        "histogram",
    ),
    "more good than total in a bucket": (
        replace(GOOD, histogram=(BucketCount(QUICK, 7, 8), BucketCount(SLOW, 3, 0))),
        "histogram",
    ),
    "a bucket of less than nothing": (
        replace(GOOD, histogram=(*HISTOGRAM, BucketCount(7, -1, -1), BucketCount(8, 1, 1))),
        "histogram",
    ),
    "totals that wrap to the right sum": (
        replace(GOOD, histogram=(*HISTOGRAM, BucketCount(7, MAX, 0), BucketCount(8, MAX, 0), BucketCount(9, 2, 0))),
        "histogram",
    ),
    "a bucket ahead of the first": (replace(GOOD, histogram=(HISTOGRAM[0], BucketCount(-1, 3, 1))), "histogram"),
    "a bucket behind the last": (replace(GOOD, histogram=(HISTOGRAM[0], BucketCount(BUCKETS, 3, 1))), "histogram"),
    "a bucket that 16 bits would wrap": (
        replace(GOOD, histogram=(HISTOGRAM[0], BucketCount((1 << 16) + SLOW, 3, 1))),
        "histogram",
    ),
    "more items than buckets": (
        replace(GOOD, histogram=(*HISTOGRAM, *[BucketCount(1, 0, 0)] * BUCKETS)),
        "histogram",
    ),
    "a greatest latency of another bucket": (replace(GOOD, max_us=95_000), "max_us"),
    "latencies in milliseconds": (replace(GOOD, sum_us=272, max_us=90), "max_us"),
    "a sum that no such requests have": (replace(GOOD, sum_us=900_001), "sum_us"),
    "no service": (replace(GOOD, service=""), "service"),
    "an endpoint of 256 bytes": (replace(GOOD, endpoint="x" * 256), "endpoint"),
    "a number of less than nothing": (replace(GOOD, seq=-1), "seq"),
}


@pytest.mark.parametrize(("record", "column"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_by_name_and_its_neighbours_are_whole(record: RequestCount, column: str) -> None:
    records = [replace(GOOD, seq=number) for number in range(NEIGHBOURS)]
    records.insert(NEIGHBOURS // 2, record)
    block = READER.read([b"n-1"] * len(records), [encode(each) for each in records])
    (reject,) = block.rejects
    assert (reject.row, reject.reason) == (NEIGHBOURS // 2, "invalid-value")
    assert reject.detail.startswith(f"{column}: ")
    assert "; expected " in reject.detail
    assert block.frame["seq"].to_list() == list(range(NEIGHBOURS))


@pytest.mark.parametrize(("record", "_"), BAD.values(), ids=BAD)
def test_a_whole_batch_with_one_that_cannot_be_is_in_doubt(record: RequestCount, _: str) -> None:
    """Of the batches of the broker none of its rows is taken: the reading record by record decides."""
    sound = [replace(GOOD, seq=number) for number in range(20)]
    frame, doubtful = READER.read_batches([batch([(b"n-1", encode(each)) for each in sound])])
    assert (doubtful, frame["seq"].to_list()) == (set(), list(range(20)))
    frame, doubtful = READER.read_batches([batch([(b"n-1", encode(each)) for each in [*sound, record]])])
    assert (doubtful, frame.height) == ({0}, 0)


@pytest.mark.parametrize(
    "record",
    [
        GOOD,
        PLAIN,
        replace(PLAIN, total=0, good=0),
        replace(PLAIN, sum_us=5_000),
        replace(GOOD, histogram=(*HISTOGRAM, BucketCount(BUCKETS - 1, 0, 0))),
        replace(GOOD, histogram=(BucketCount(QUICK, 3, 3), HISTOGRAM[1], BucketCount(QUICK, 4, 4))),
        replace(GOOD, total=0, good=0, sum_us=0, max_us=0, histogram=(BucketCount(5, 0, 0),)),
        replace(PLAIN, total=MAX_REQUESTS, good=MAX_REQUESTS, sum_us=MAX_SUM_US, max_us=MAX_LATENCY_US),
        replace(PLAIN, ts=MAX),
        replace(PLAIN, ts=-MAX),
    ],
)
def test_what_can_be_is_taken(record: RequestCount) -> None:
    block = READER.read([b"n-1"], [encode(record)])
    assert block.rejects == ()
    assert block.frame["total"].to_list() == [record.total]


def test_another_ones_count_is_refused() -> None:
    block = READER.read([b"n-2"], [encode(GOOD)])
    assert [reject.reason for reject in block.rejects] == ["key-mismatch"]


def test_the_rule_knows_the_bucket_of_every_latency() -> None:
    """Around every bound: the logarithm in the rule, and in producers, finds the integers' buckets."""
    latencies = sorted({us for bound in BOUNDS_US for us in (bound - 1, bound, bound + 1) if 0 <= us <= MAX_LATENCY_US})
    records = [
        replace(GOOD, total=1, good=1, sum_us=0, max_us=us, histogram=(BucketCount(bucket_of(us), 1, 1),))
        for us in latencies
    ]
    assert READER.read([b"n-1"] * len(records), [encode(each) for each in records]).rejects == ()
    wrong = [replace(each, histogram=(BucketCount(bucket_of(each.max_us) + 1, 1, 1),)) for each in records[:-3]]
    assert len(READER.read([b"n-1"] * len(wrong), [encode(each) for each in wrong]).rejects) == len(wrong)
    assert all(bucket_of(us) == (1 + math.ceil(math.log(us, 1.02)) if us else 0) for us in latencies)


@given(st.integers(0, MAX_LATENCY_US))
def test_a_bound_has_no_latency_on_both_sides_of_it_in_one_bucket(latency_us: int) -> None:
    assert is_bound(latency_us) == (bucket_of(latency_us) != bucket_of(latency_us + 1))
