"""Periods of calendars: what a wall clock shows, with summer time, months of any length, and no gaps."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.calendars import Calendar, begins_at_whole_hours
from streams.core.slices import HOURS
from streams.core.windows import current

NEW_YORK, BERLIN, HOUR_S, DAY_S = "America/New_York", "Europe/Berlin", 3_600, 86_400


DAILY, MONTHLY = Calendar("2026-01-01 00:00:00", BERLIN, 1, "d"), Calendar("2026-01-01 00:00:00", BERLIN, 1, "M")
UTC_DAILY, LAST = Calendar("2026-01-01 00:00:00", "UTC", 1, "d"), Calendar("2024-01-31 00:00:00", "UTC", 1, "M")
WEEKLY = Calendar("2022-01-01 12:00:00", NEW_YORK, 1, "w")
TEN_DAYS = Calendar("2026-06-15 00:00:00", "UTC", 10, "d")


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@pytest.mark.parametrize(
    ("calendar", "now", "begin", "end", "hours"),
    [
        (UTC_DAILY, "2026-05-05 13:14", "2026-05-05 00:00", "2026-05-06 00:00", 24),
        # The day on which the clock is put forward has 23 hours, the one on which it is put back 25.
        (DAILY, "2026-03-29 20:00", "2026-03-29 00:00", "2026-03-30 00:00", 23),
        (DAILY, "2026-10-25 20:00", "2026-10-25 00:00", "2026-10-26 00:00", 25),
        # OpenSLO's own example: a week that begins on Saturdays at noon in New York.
        (WEEKLY, "2026-03-08 03:00", "2026-03-07 12:00", "2026-03-14 12:00", 167),
        (WEEKLY, "2026-03-07 11:59", "2026-02-28 12:00", "2026-03-07 12:00", 168),
        (WEEKLY, "2026-03-07 12:00", "2026-03-07 12:00", "2026-03-14 12:00", 167),
        (MONTHLY, "2026-02-10 00:00", "2026-02-01 00:00", "2026-03-01 00:00", 28 * 24),
        (MONTHLY, "2026-03-31 23:59", "2026-03-01 00:00", "2026-04-01 00:00", 31 * 24 - 1),
        (MONTHLY, "2026-10-01 00:00", "2026-10-01 00:00", "2026-11-01 00:00", 31 * 24 + 1),
        # Months that begin on the 31st begin on their last day, and the next one on its 31st again.
        (LAST, "2026-03-01 00:00", "2026-02-28 00:00", "2026-03-31 00:00", 31 * 24),
        (LAST, "2024-02-29 00:00", "2024-02-29 00:00", "2024-03-31 00:00", 31 * 24),
        # There are periods before the start too.
        (TEN_DAYS, "2026-01-01 00:00", "2025-12-27 00:00", "2026-01-06 00:00", 240),
    ],
)  # fmt: skip
def test_the_period_that_a_wall_clock_shows(calendar: Calendar, now: str, begin: str, end: str, hours: int) -> None:
    found = calendar.period(at(now, calendar.zone))
    assert found == (at(begin, calendar.zone), at(end, calendar.zone))
    assert found[1] - found[0] == hours * HOUR_S


def test_a_time_that_is_left_out_or_comes_twice() -> None:
    """02:00 is not there on 29 March, and comes twice on 25 October."""
    nightly = Calendar("2026-01-01 02:00:00", BERLIN, 1, "d")
    assert nightly.period(at("2026-03-29 12:00"))[0] == at("2026-03-29 01:00")  # 03:00 in summer time
    assert nightly.period(at("2026-10-25 12:00"))[0] == at("2026-10-25 00:00")  # the first 02:00, still summer time


ZONES = st.sampled_from(["UTC", BERLIN, NEW_YORK, "Australia/Sydney", "America/Sao_Paulo", "Africa/Casablanca"])
CALENDARS = st.builds(
    lambda day, hour, zone, period: Calendar(f"{day} {hour:02}:00:00", zone, *period),
    st.dates(datetime(2000, 1, 1).date(), datetime(2050, 1, 1).date()),  # noqa: DTZ001 - a wall's
    st.integers(0, 23),
    ZONES,
    st.sampled_from([(1, "d"), (3, "d"), (31, "d"), (1, "w"), (4, "w"), (1, "M")]),
)


@given(CALENDARS, st.integers(at("2015-01-01"), at("2035-01-01")))
def test_periods_follow_each_other_without_gaps_and_are_held(calendar: Calendar, now_s: int) -> None:
    begin, end = calendar.period(now_s)
    assert begin <= now_s < end
    assert calendar.period(begin) == (begin, end)
    assert calendar.period(begin - 1)[1] == begin
    assert calendar.period(end)[0] == end
    assert abs(end - begin - calendar.nominal_s) <= 2 * DAY_S + 2 * HOUR_S
    assert end - begin <= HOURS.keep_s


@given(CALENDARS, st.integers(at("2015-01-01"), at("2035-01-01")))
def test_its_window_is_whole_hours_and_ends_with_the_one_that_goes_on(calendar: Calendar, now_s: int) -> None:
    window = current(calendar, now_s * 1_000)
    begin, end = calendar.period(now_s)
    assert (window.tier, window.start_s, window.window_s) == (HOURS, begin, end - begin)
    assert now_s < window.end_s <= min(now_s + HOUR_S, end)
    assert window.start_s % HOUR_S == window.end_s % HOUR_S == 0


@pytest.mark.parametrize(
    ("start", "zone", "whole"),
    [
        ("2026-01-01 00:00:00", "UTC", True),
        ("2026-01-01 00:00:00", BERLIN, True),
        ("2026-01-01 00:30:00", BERLIN, False),
        ("2026-01-01 00:00:01", "UTC", False),
        ("2026-01-01 00:00:00", "Asia/Kolkata", False),  # 18:30 UTC
        ("2026-01-01 05:30:00", "Asia/Kolkata", True),
        ("2026-01-01 00:00:00", "Asia/Kathmandu", False),
        ("2026-01-01 00:30:00", "Australia/Lord_Howe", False),  # its summer time is half an hour
        ("2026-01-01 00:00:00", "Australia/Lord_Howe", False),
    ],
)
def test_periods_that_do_not_begin_at_whole_hours_are_known(start: str, zone: str, whole: bool) -> None:  # noqa: FBT001 - a column
    assert begins_at_whole_hours(Calendar(start, zone, 1, "M")) is whole


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../../etc/passwd", "/etc/passwd", "\0", ""])
def test_a_name_that_no_zone_has_is_a_zone_that_is_not_known(name: str) -> None:
    """Whoever asks says that; anything else would end a worker."""
    with pytest.raises(ZoneInfoNotFoundError):
        Calendar("2026-01-01 00:00:00", name, 1, "d").period(1_800_000_000)
