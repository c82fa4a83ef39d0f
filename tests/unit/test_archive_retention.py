"""How long rows are kept: options, the statements they make, and of which days all raw rows are there."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from streams.archive.retention import Age, RetentionError, age_of, ages, first_whole_day, statements

DAY_MS = 86_400_000
NOON_MS = int(datetime(2026, 3, 20, 12, tzinfo=UTC).timestamp() * 1000)
GOLDEN = Path(__file__).with_name("retention.sql")


def test_heartbeats_are_kept_for_three_days_and_probe_results_for_fourteen() -> None:
    found = ages([])
    assert (found["heartbeats"], found["probe_results"], found["probe_1m"]) == (Age(3), Age(14), Age(60))
    changed = ages(["heartbeats=5d", "probe_1m=30d"], ["heartbeats=2d"])
    assert (changed["heartbeats"], changed["probe_1m"], changed["probe_results"]) == (Age(5, 2), Age(30), Age(14))


@pytest.mark.parametrize(
    "text", ["heartbeats", "heartbeats=3", "heartbeats=0d", "heartbeats=3h", "beats=3d", "archive_plans=3d"]
)
def test_an_option_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(
        RetentionError, match=rf"--keep {text}: expected TABLE=DAYSd, such as heartbeats=3d, with one of"
    ):
        ages([text])


def test_rows_cannot_be_moved_after_they_are_deleted() -> None:
    with pytest.raises(RetentionError, match="--cold-after heartbeats=3d: rows are deleted after 3 days"):
        ages([], ["heartbeats=3d"])


def test_statements_are_as_they_were() -> None:
    """The golden file shows what a server is told; look at every change of it."""
    cases = [
        ("kept for three days", statements("heartbeats", Age(3))),
        ("moved to a cold volume first", statements("probe_results", Age(60, 7), "tiered")),
        ("on a policy that has the volume already", statements("slo_windows", Age(400, 30))),
        ("a rollup", statements("probe_1m", Age(800, 100), "tiered")),
    ]
    text = "\n".join(line for title, found in cases for line in (f"-- {title}", *(f"{each};" for each in found), ""))
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        ("toDateTime(received_at) + toIntervalDay(14)", Age(14)),
        ("toDateTime(received_at) + toIntervalDay(7) TO VOLUME 'cold', toDateTime(ts) + toIntervalDay(60)", Age(60, 7)),
        ("toDateTime(received_at) + toIntervalDay(60), toDateTime(ts) + toIntervalDay(7) TO VOLUME 'cold'", Age(60, 7)),
    ],
)
def test_the_engines_words_are_understood(ttl: str, expected: Age) -> None:
    assert (
        age_of(f"CREATE TABLE t (a String COMMENT 'TTL') ORDER BY a TTL {ttl} SETTINGS ttl_only_drop_parts = 1")
        == expected
    )


def test_a_table_without_a_ttl_keeps_its_rows() -> None:
    assert age_of("CREATE TABLE t (a String) ORDER BY a SETTINGS index_granularity = 8192").days > 10_000
    assert first_whole_day(NOON_MS, [(NOON_MS - DAY_MS, 36_500)]) == date(2026, 3, 6)


def test_a_day_is_whole_while_its_first_row_is_there() -> None:
    assert first_whole_day(NOON_MS, []) == date(2026, 3, 7)
    assert first_whole_day(NOON_MS, [(NOON_MS - 30 * DAY_MS, 3)]) == date(2026, 3, 18)
    # at midnight the first row of the day is about to go
    midnight_ms = NOON_MS - DAY_MS // 2
    assert first_whole_day(midnight_ms, [(0, 3)]) == date(2026, 3, 18)


def test_what_has_expired_does_not_come_back_when_more_is_kept() -> None:
    for_a_day = [(NOON_MS - 5 * DAY_MS, 1), (NOON_MS - 4 * DAY_MS, 14)]
    assert first_whole_day(NOON_MS, for_a_day) == date(2026, 3, 16)
    assert first_whole_day(NOON_MS + 30 * DAY_MS, for_a_day) == date(2026, 4, 6)
