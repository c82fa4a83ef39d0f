"""What `fleetbeat reconcile` calls a difference, what it leaves out, and whom a rebuild may touch."""

from datetime import UTC, datetime

import polars as pl
import pytest

import fleetbeat
from streams.core.objectives import Objective, Selector
from streams.core.series import OVERFLOW
from streams.core.versions import Announcement, Timeline
from streams.history.judging import FOR_EVER_S, judgings
from streams.history.rows import Reach, packed
from streams.history.sums import Span
from streams.state.compare import Difference, differences
from streams.state.coverage import judged, whole_from_s
from streams.state.kept import NAMED
from streams.state.reconcile import Finding
from streams.state.reconcile_run import SpanError, as_json, describe, read_span

HOUR = 3_600
Row = tuple[int, str, int, bool, int, int, int, int]


def rows(*found: Row) -> pl.DataFrame:
    """(start, series, bucket, good, n, late_n, sum_us, max_us) each."""
    return pl.DataFrame(list(found), schema=NAMED, orient="row")


BASE = rows((0, "slo:a@1", 5, True, 10, 1, 100, 20), (0, "slo:a@1", 7, False, 2, 0, 60, 40))


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        pytest.param(BASE, [], id="equal"),
        pytest.param(BASE.reverse(), [], id="order says nothing"),
        pytest.param(
            rows((0, "slo:a@1", 5, True, 11, 1, 100, 20), (0, "slo:a@1", 7, False, 2, 0, 60, 40)),
            [("total", 12, 13), ("good", 10, 11)],
            id="one event more",
        ),
        pytest.param(rows((0, "slo:a@1", 5, True, 10, 1, 100, 20)), [
            ("total", 12, 10), ("sum_us", 160, 100), ("max_us", 40, 20),
        ], id="a bucket less"),
        pytest.param(
            rows((0, "slo:a@1", 5, True, 10, 1, 100, 20), (0, "slo:a@1", 8, False, 2, 0, 60, 40)),
            [("n of bucket 7 bad", 2, 0)],
            id="another bucket, the same totals",
        ),
        pytest.param(
            rows((0, "slo:a@1", 5, True, 10, 0, 100, 20), (0, "slo:a@1", 7, False, 2, 1, 60, 40)),
            [("late_n of bucket 5 good", 1, 0)],
            id="another one is late",
        ),
        pytest.param(rows(), [("total", 12, 0), ("good", 10, 0), ("late", 1, 0), ("sum_us", 160, 0), ("max_us", 40, 0)],
            id="nothing"),
    ],
)  # fmt: skip
def test_every_field_that_differs_is_named(raw: pl.DataFrame, found: list[tuple[str, int, int]]) -> None:
    assert list(differences(BASE, raw)) == [Difference("slo:a@1", 0, *each) for each in found]


def test_differences_come_by_series_and_time() -> None:
    stream = rows(*((start, series, -1, True, 1, 0, 5, 5) for start in (60, 0) for series in ("b", "a")))
    assert [(each.series, each.start_s) for each in differences(stream, rows()) if each.field == "total"] == [
        ("a", 0), ("a", 60), ("b", 0), ("b", 60),
    ]  # fmt: skip


def named(series: str, n: int, late_n: int, sum_us: int, max_us: int, start: int = 0) -> Row:
    """Good ones without buckets."""
    return start, series, -1, True, n, late_n, sum_us, max_us


NAMES = rows(named("a", 5, 0, 50, 30), named("b", 3, 1, 30, 20), named("c", 2, 0, 9, 8))


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        pytest.param(
            rows(named("a", 5, 0, 50, 30), named(OVERFLOW, 5, 1, 39, 20)), [], id="two are summed as one"
        ),
        pytest.param(
            rows(named("a", 4, 0, 40, 30), named("b", 3, 1, 30, 20), named(OVERFLOW, 3, 0, 19, 10)),
            [], id="one has a part under its name",
        ),
        pytest.param(
            rows(named("a", 5, 0, 50, 30), named(OVERFLOW, 4, 1, 36, 20)),
            [(OVERFLOW, "total", 4, 5), (OVERFLOW, "good", 4, 5), (OVERFLOW, "sum_us", 36, 39)],
            id="one event of the overflow is missing",
        ),
        pytest.param(
            rows(named("a", 6, 0, 50, 30), named(OVERFLOW, 5, 1, 39, 20)),
            [("a", "total", 6, 5), ("a", "good", 6, 5)],
            id="a name has too many",
        ),
        pytest.param(
            rows(named("a", 5, 0, 50, 30), named(OVERFLOW, 5, 1, 39, 31)),
            [(OVERFLOW, "max_us", 31, 20)],
            id="the overflow has a latency that nobody had",
        ),
        pytest.param(
            rows(named(OVERFLOW, 5, 1, 39, 20, 60), *NAMES.rows()),
            [
                (OVERFLOW, field, n, 0)
                for field, n in (("total", 5), ("good", 5), ("late", 1), ("sum_us", 39), ("max_us", 20))
            ],
            id="an overflow at another time",
        ),
    ],
)  # fmt: skip
def test_what_names_lack_must_be_the_overflows(stream: pl.DataFrame, found: list[tuple[str, str, int, int]]) -> None:
    told = [(each.series, each.field, each.stream, each.raw) for each in differences(stream, NAMES)]
    assert told == found


@pytest.mark.parametrize(
    ("asked", "limits", "over_s", "span", "left_out"),
    [
        pytest.param(Span(10, 4 * HOUR + 10), {}, 9 * HOUR, Span(HOUR, 4 * HOUR), [], id="whole hours that are asked"),
        pytest.param(
            Span(0, 4 * HOUR), {"rows": HOUR + 1}, 9 * HOUR, Span(2 * HOUR, 4 * HOUR), [Span(0, 2 * HOUR)],
            id="the hour in which rows begin is not whole",
        ),
        pytest.param(
            Span(0, 4 * HOUR), {}, 3 * HOUR - 1, Span(0, 2 * HOUR), [Span(2 * HOUR, 4 * HOUR)], id="an hour is not over"
        ),
        pytest.param(
            Span(0, 4 * HOUR), {"rows": HOUR, "tables": 3 * HOUR}, 4 * HOUR, Span(3 * HOUR, 4 * HOUR),
            [Span(0, HOUR), Span(HOUR, 3 * HOUR)], id="each limit leaves out its own",
        ),
        pytest.param(Span(0, 2 * HOUR), {"rows": 5 * HOUR}, 9 * HOUR, Span(0, 0), [Span(0, 2 * HOUR)], id="nothing"),
    ],
)  # fmt: skip
def test_hours_that_both_sides_hold(
    asked: Span, limits: dict[str, int], over_s: int, span: Span, left_out: list[Span]
) -> None:
    found, out = judged(asked, HOUR, limits, over_s)
    assert (found, [each.span for each in out]) == (span, left_out)
    assert all(each.why for each in out)


def test_an_archive_that_never_missed_a_record_is_whole_from_the_beginning() -> None:
    whole, begun = Reach(0, 77_000, 9, 99_000, 0), Reach(3, 50_000, 9, 99_000, 0)
    assert whole_from_s({"probe-results": {0: whole}}) == 0
    assert whole_from_s({"probe-results": {0: whole, 1: begun}}) == 55


def test_hours_are_asked_for_together_as_long_as_they_have_few_rows() -> None:
    found = packed({0: 5, HOUR: 5, 2 * HOUR: 1, 5 * HOUR: 20, 6 * HOUR: 1}, Span(100, 6 * HOUR + 60), most=10)
    assert found == [
        Span(100, 2 * HOUR), Span(2 * HOUR, 3 * HOUR), Span(5 * HOUR, 6 * HOUR), Span(6 * HOUR, 6 * HOUR + 60),
    ]  # fmt: skip


def test_a_span_is_read_as_times_and_ages() -> None:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert read_span("-24h", "now", now) == Span(1_772_366_400, 1_772_452_800)
    assert read_span("2026-03-01T12:00:00Z", "-1h", now) == Span(1_772_366_400, 1_772_449_200)
    for wrong in (("now", "-1h"), ("yesterday", "now")):
        with pytest.raises(SpanError, match="expected"):
            read_span(*wrong, now)


def test_a_version_judges_all_its_stretches_of_time() -> None:
    loose, strict = (Objective("o", "s", "o", Selector(), limit, 0.99, 60) for limit in (1_000, 100))
    said = [Announcement(n, n * 100_000, 0, (each,)) for n, each in enumerate((loose, strict, loose))]
    found = judgings(Timeline(said))
    assert {name: each.slices for name, each in found.items()} == {
        loose.series: (Span(0, 130), Span(230, FOR_EVER_S)),
        strict.series: (Span(130, 230),),
    }
    assert found[strict.series].objective == strict


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "--from yesterday",
            "--from yesterday: expected a time such as 2026-03-02T10:00:00Z, an age such as -24h, or now",
        ),
        ("--from -999999999d", "--from -999999999d: expected a time"),
        ("--to 0001-01-01T00:00+05:00", "--from -24h --to 0001-01-01T00:00+05:00: expected a time, and a later one"),
    ],
)
def test_a_time_that_is_none_is_said(arguments: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert fleetbeat.main(["reconcile", *arguments.split()]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--partition 3 --yes", "--partition without --clickhouse, which makes all tables anew"),
        ("--from -1h --force --series-max 9", "--from --force --series-max without --clickhouse"),
        ("--clickhouse http://h --from yesterday", "--from yesterday: expected a time"),
        ("--clickhouse http://h --from 9998-01-01", "--from 9998-01-01: is still to come"),
        ("--clickhouse http://h --series-max 0", "--series-max 0: expected 1 or more"),
        ("--clickhouse http://h --family nodes", "--family nodes beside --clickhouse"),
    ],
)
def test_a_rebuild_does_not_do_other_things_than_it_was_asked_for(
    arguments: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fleetbeat.main(["state", "rebuild", "--brokers", "127.0.0.1:1", *arguments.split()]) == 2
    assert said in capfd.readouterr().err


def test_nothing_compared_is_not_equal() -> None:
    nothing = Finding(compared={"1h": 0, "1m": 0}, spans={"1h": Span(0, 0), "1m": Span(0, 0)})
    assert not nothing.equal
    assert list(describe(nothing))[-1] == "0 events, once for each series: nothing was compared"
    assert as_json(nothing)["equal"] is False
    assert Finding(compared={"1h": 0, "1m": 1}).equal
    lost = Finding(lost={3: "gone"})
    assert (lost.nothing, lost.equal) == (False, False)
