"""What is published of a counter is its last value less its first, whatever happened between; of histograms as well."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.scrape.counts import Reading, TargetCounts
from agents.scrape.exposition import Wanted
from agents.scrape.jobs import Job, job_of
from agents.scrape.settings import ScrapeFile
from schemas.buckets import BOUNDS_US, bucket_of

NOW_MS = 1_800_000_000_000
INF = "+Inf"


def make(*requests: Mapping[str, object], max_series: int = 1_000) -> tuple[Job, TargetCounts]:
    file = {"name": "shop", "service": "shop", "targets": ["h:1"], "max_series": max_series, "requests": requests}
    job = job_of(ScrapeFile.model_validate(file))
    return job, TargetCounts(job.meters, max_series)


class Target:
    """Pages of one target, one a second."""

    def __init__(self, *requests: Mapping[str, object], max_series: int = 1_000) -> None:
        self.job, self.counts = make(*requests, max_series=max_series)
        self.now_ms = NOW_MS
        self.seen: list[Reading] = []

    def page(self, *lines: str) -> Reading:
        self.now_ms += 1_000
        page = "".join(f"{line}\n" for line in lines).encode()
        self.seen.append(self.counts.read(self.job.wanted.samples(page), self.now_ms))
        return self.seen[-1]

    def total(self, *, good: bool | None = None) -> int:
        deltas = [delta for reading in self.seen for delta in reading.deltas]
        return sum(delta.total for delta in deltas if good is None or delta.is_good == good)


COUNTER = {"counter": "hits_total", "bad": {"code": "5.."}}
LATENCY = {"histogram": "seconds", "bad": {"code": "5.."}}


def histogram(buckets: dict[str, int], seconds: float = 0.0, labels: str = "") -> list[str]:
    below, lines = 0, []
    for le, count in buckets.items():
        below += count
        lines.append(f'seconds_bucket{{{labels}le="{le}"}} {below}')
    return [*lines, f"seconds_sum{{{labels}}} {seconds}"]


def test_the_first_page_gives_nothing_and_each_later_one_what_was_added() -> None:
    target = Target(COUNTER)
    assert target.page('hits_total{code="200"} 1000', 'hits_total{code="500"} 7').deltas == []
    reading = target.page('hits_total{code="200"} 1010', 'hits_total{code="500"} 7')
    assert [(delta.total, delta.is_good) for delta in reading.deltas] == [(10, True)]
    assert (reading.since_ms, reading.until_ms) == (NOW_MS + 1_000, NOW_MS + 2_000)
    target.page('hits_total{code="200"} 1.01e+03', 'hits_total{code="500"} 9')
    assert (target.total(good=True), target.total(good=False)) == (10, 2)


def test_a_series_that_is_new_on_a_later_page_counts_from_0_and_one_that_was_away_goes_on() -> None:
    target = Target(COUNTER)
    target.page('hits_total{code="200"} 5')
    target.page('hits_total{code="200"} 5', 'hits_total{code="500"} 3')
    assert target.total(good=False) == 3
    target.page('hits_total{code="200"} 5')
    target.page('hits_total{code="200"} 5', 'hits_total{code="500"} 4')
    assert target.total(good=False) == 4


def test_a_counter_that_went_down_began_anew() -> None:
    target = Target(COUNTER)
    target.page("hits_total 100")
    target.page("hits_total 130")
    assert target.page("hits_total 4").resets == 1
    target.page("hits_total 6")
    assert target.total() == 30 + 4 + 2


def test_the_same_series_may_be_written_in_another_way() -> None:
    target = Target(COUNTER)
    target.page('hits_total{code="200",path="a"} 1')
    target.page('hits_total{ path="a", code="200", } 4')
    assert target.total() == 3


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1.5", "1_000", "x", "1e30", "9223372036854775808"])
def test_a_value_that_no_counter_has_leaves_out_its_series_until_it_has_one_again(value: str) -> None:
    target = Target(COUNTER)
    target.page('hits_total{code="200"} 10', 'hits_total{code="500"} 1')
    reading = target.page(f'hits_total{{code="200"}} {value}', 'hits_total{code="500"} 3')
    assert [(delta.total, delta.is_good) for delta in reading.deltas] == [(2, False)]
    (problem,) = reading.problems
    assert problem.startswith("hits_total{'code': '200'}: value ")
    target.page('hits_total{code="200"} 15')
    assert target.total(good=True) == 5


def test_a_series_whose_first_value_is_none_gives_nothing_with_its_second() -> None:
    target = Target(COUNTER)
    target.page("hits_total NaN")
    target.page("hits_total 1000")
    target.page("hits_total 1001")
    assert target.total() == 1


def test_a_series_that_is_there_twice_is_left_out() -> None:
    target = Target(COUNTER)
    target.page('hits_total{a="1",code="200"} 1')
    reading = target.page('hits_total{a="1",code="200"} 5', 'hits_total{code="200",a="1"} 900')
    assert reading.deltas == []
    assert "twice" in reading.problems[0]
    target.page('hits_total{a="1",code="200"} 6')
    assert target.total() == 5


def test_a_raise_that_cannot_be_is_told_and_counted_from_there_on() -> None:
    target = Target(COUNTER)
    target.page("hits_total 1")
    reading = target.page("hits_total 5000000000")
    assert "raised by 4999999999; expected at most 1000000000" in reading.problems[0]
    target.page("hits_total 5000000002")
    assert target.total() == 2


def test_labels_say_what_is_counted_and_under_which_endpoint() -> None:
    target = Target(
        {"counter": "hits_total", "where": {"method": "GET|"}, "endpoint_label": "path", "max_endpoints": 2},
        {"counter": "hits_total", "where": {"method": "POST"}, "endpoint": "posts"},
    )
    target.page("hits_total 0")
    paths = [f'hits_total{{path="/{path}",method="GET"}} {count}' for path, count in (("a", 1), ("b", 2), ("c", 3))]
    reading = target.page(*paths, "hits_total 4", 'hits_total{path="/a",method="POST"} 5', 'hits_total{method="X"} 6')
    assert Counter({delta.key.endpoint: delta.total for delta in reading.deltas}) == {
        "/a": 1,
        "/b": 2,
        "other": 3,
        "shop": 4,
        "posts": 5,
    }


def test_a_required_metric_that_is_not_there_is_missed() -> None:
    target = Target(COUNTER | {"required": True}, LATENCY | {"required": True})
    assert target.page("hits_total 0").missing == ["seconds"]
    assert target.page(*histogram({INF: 0})).missing == ["hits_total"]


def test_buckets_become_those_of_the_contract_at_their_upper_end() -> None:
    target = Target(LATENCY)
    target.page(*histogram({"0.1": 5, "0.25": 5, INF: 5}, 9))
    (delta,) = target.page(*histogram({"0.1": 8, "0.25": 7, INF: 5}, 9.5)).deltas
    assert [(cell.upper_us, cell.total) for cell in delta.cells] == [(100_000, 3), (250_000, 2)]
    assert (delta.total, delta.sum_us) == (5, 500_000)


def test_what_is_above_all_bounds_is_where_the_sum_says_that_it_is_at_most() -> None:
    target = Target(LATENCY)
    target.page(*histogram({"0.1": 0, INF: 0}))
    (delta,) = target.page(*histogram({"0.1": 10, INF: 2}, 7.5)).deltas
    assert [(cell.upper_us, cell.total) for cell in delta.cells] == [(100_000, 10), (3_750_000, 2)]
    (delta,) = target.page(*histogram({"0.1": 10, INF: 3}, 7.5)).deltas
    assert [cell.upper_us for cell in delta.cells] == [BOUNDS_US[bucket_of(100_000)] + 1]
    (delta,) = target.page(*histogram({"0.1": 10, INF: 4}, 1e9)).deltas
    assert [cell.upper_us for cell in delta.cells] == [86_400_000_000]


def test_a_histogram_that_is_read_while_it_changes_is_told_by_a_later_page() -> None:
    """This exporter raises each cumulative bucket by itself: the first one is raised, the second one not yet."""
    target = Target(LATENCY)
    target.page(*histogram({"0.1": 3, "0.5": 3, INF: 0}))
    skewed = target.page(*histogram({"0.1": 4, "0.5": 2, INF: 0}))
    assert (skewed.deltas, skewed.problems, skewed.postponed, skewed.resets) == ([], [], 1, 0)
    target.page(*histogram({"0.1": 4, "0.5": 3, INF: 0}))
    assert target.total() == 1


@pytest.mark.parametrize(
    "after",
    [{"0.1": 1, "0.5": 1, INF: 0}, {"0.1": 0, "0.5": 9, INF: 0}, {"0.2": 4, "0.5": 4, INF: 0}],
    ids=["less in all", "less in one", "other bounds"],
)
def test_a_histogram_that_went_down_or_has_other_bounds_began_anew(after: dict[str, int]) -> None:
    target = Target(LATENCY)
    target.page(*histogram({"0.1": 3, "0.5": 4, INF: 0}, 2.0))
    reading = target.page(*histogram(after, 0.25))
    assert reading.resets == 1
    assert target.total() == sum(after.values())
    assert reading.deltas[0].sum_us == 250_000


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['seconds_bucket{le="0.1"} 9'], "no bucket with le +Inf"),
        ([*histogram({"0.1": 3, INF: 4}), 'seconds_bucket{le="1e-1"} 3'], "bucket 0.1 is there twice"),
        ([*histogram({"0.1": 3, INF: 4}), 'seconds_bucket{le="high"} 3'], "le 'high'; expected a number or +Inf"),
        ([*histogram({"0.1": 3, INF: 4}), "seconds_bucket 3"], "le ''; expected a number or +Inf"),
        (histogram({"-Inf": 3, INF: 4}), "le '-Inf'; expected a number or +Inf"),
        (['seconds_bucket{le="0.1"} NaN', 'seconds_bucket{le="+Inf"} 4'], "value 'NaN'"),
    ],
)
def test_a_histogram_that_is_none_is_left_out_as_a_whole(lines: list[str], said: str) -> None:
    target = Target(LATENCY)
    target.page(*histogram({"0.1": 1, INF: 1}))
    reading = target.page(*lines)
    assert reading.deltas == []
    assert any(said in problem for problem in reading.problems)
    target.page(*histogram({"0.1": 5, INF: 5}))
    assert target.total() == 8


@pytest.mark.parametrize(("seconds", "expected_us"), [("NaN", 0), ("-3", 0), ("1e300", 0), ("99", 400_000)])
def test_a_sum_that_cannot_be_is_left_out_or_cut(seconds: str, expected_us: int) -> None:
    target = Target(LATENCY)
    target.page(*histogram({"0.1": 0, INF: 0}))
    (delta,) = target.page('seconds_bucket{le="0.1"} 4', 'seconds_bucket{le="+Inf"} 4', f"seconds_sum {seconds}").deltas
    assert (delta.total, delta.sum_us) == (4, expected_us)


def test_series_that_are_never_seen_again_are_forgotten_and_then_nothing_counts_from_0_any_more() -> None:
    target = Target(COUNTER, max_series=10)
    target.page('hits_total{user="0"} 1')
    for user in range(1, 40):
        target.page(f'hits_total{{user="{user}"}} 1')
    assert len(target.counts._series) <= 11
    counted = target.total()
    target.page('hits_total{user="0"} 1000')
    assert target.total() == counted


increments = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@given(st.lists(st.tuples(increments, st.sampled_from(["read", "read", "missed", "restart"])), max_size=12))
def test_what_is_published_of_counters_is_what_they_have_counted(steps: list[tuple[list[int], str]]) -> None:
    """Series come up with their first request. A restart that is not read at once may hide behind a higher count."""
    target = Target(COUNTER)
    counts: Counter[int] = Counter()
    target.page("hits_total 0")
    expected = pending = 0
    for raises, what in [*steps, ([0], "read")]:
        if what == "restart":
            # All that was counted since the last page is lost with the process, unless it is read before.
            target.page(*(f'hits_total{{code="{code}"}} {count}' for code, count in counts.items()))
            expected, pending = expected + pending, 0
            counts.clear()
            target.page(*(f'hits_total{{code="{code}"}} 0' for code in range(8)))
        for code, raised in enumerate(raises):
            if raised:
                counts[code] += raised
                pending += raised
        if what == "read":
            target.page(*(f'hits_total{{code="{code}"}} {count}' for code, count in counts.items()))
            expected, pending = expected + pending, 0
    assert target.total() == expected


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.booleans(), st.booleans()), max_size=10)
)
def test_what_is_published_of_histograms_is_each_bucket_exactly(steps: list[tuple[list[int], bool, bool]]) -> None:
    target = Target(LATENCY)
    bounds = ("0.01", "0.1", "2.5", INF)
    counts = {label: [0] * 4 for label in ("200", "500")}
    seconds = dict.fromkeys(counts, 0.0)

    def page() -> list[str]:
        return [
            line
            for code, each in counts.items()
            for line in histogram(dict(zip(bounds, each, strict=True)), seconds[code], f'code="{code}",')
        ]

    target.page(*page())
    for raises, is_bad, is_read in [*steps, ([0] * 4, False, True)]:
        code = "500" if is_bad else "200"
        counts[code] = [count + raised for count, raised in zip(counts[code], raises, strict=True)]
        seconds[code] += sum(raised * took for raised, took in zip(raises, (0.005, 0.05, 1.0, 7.0), strict=True))
        if is_read:
            target.page(*page())
    published: Counter[tuple[bool, bool, int]] = Counter()
    for delta in (delta for reading in target.seen for delta in reading.deltas):
        for cell in delta.cells:
            published[delta.is_good, cell.upper_us > 2_500_000, min(cell.upper_us, 2_500_001)] += cell.total
    uppers = ((False, 10_000), (False, 100_000), (False, 2_500_000), (True, 2_500_001))
    expected = Counter(
        {
            (code == "200", is_above, upper): count
            for code, each in counts.items()
            for (is_above, upper), count in zip(uppers, each, strict=True)
        }
    )
    assert +published == +expected
    total_us = sum(delta.sum_us for reading in target.seen for delta in reading.deltas)
    assert total_us == pytest.approx(sum(seconds.values()) * 1e6, abs=len(target.seen) * 2)


def test_the_names_that_are_looked_for_are_those_of_all_that_is_counted() -> None:
    job, _ = make(COUNTER, LATENCY, COUNTER)
    assert isinstance(job.wanted, Wanted)
    page = b'hits_total 1\nseconds_bucket{le="+Inf"} 1\nseconds_sum 1\nseconds_count 1\n'
    names = [series.partition(b"{")[0] for series, _ in job.wanted.samples(page)]
    assert names == [b"hits_total", b"seconds_bucket", b"seconds_sum"]
    assert replace(job).meters == job.meters
