"""Periods of a calendar: days, weeks and months as a wall clock somewhere shows them, with its summer time."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

START_FORMAT = "%Y-%m-%d %H:%M:%S"
_DAYS = {"d": 1, "w": 7, "M": 30}  # about a month
UNITS = tuple(_DAYS)
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Calendar:
    """Periods of `count` days (`d`), weeks (`w`) or months (`M`), one of which begins at `start` in `zone`.

    `start` is what a clock on the wall shows (START_FORMAT); a month without its day begins on its last one. A time
    that summer time leaves out is as much after its begin, and of two times the first one counts: no period has a gap.
    """

    start: str
    zone: str
    count: int
    unit: str

    @property
    def nominal_s(self) -> int:
        """The length of a usual period; of a month 30 days."""
        return self.count * _DAYS[self.unit] * DAY_S

    def period(self, now_s: int) -> tuple[int, int]:
        """(begin, end) in seconds of the period that holds `now_s`. Raises ZoneInfoNotFoundError."""
        return _period(self, now_s // 3_600)

    def begin_s(self, number: int) -> int:
        """The begin of a period; the one at `start` is number 0."""
        first, zone = datetime.strptime(self.start, START_FORMAT), _zone(self.zone)  # noqa: DTZ007 - a wall's
        if self.unit == "M":
            months = first.year * 12 + first.month - 1 + number * self.count
            year, month = months // 12, months % 12 + 1
            begin = first.replace(year=year, month=month, day=min(first.day, monthrange(year, month)[1]))
        else:
            begin = first + timedelta(days=number * self.count * _DAYS[self.unit])
        return int(begin.replace(tzinfo=zone).timestamp())


def _zone(name: str) -> ZoneInfo:
    """Raises ZoneInfoNotFoundError also for what could be the name of none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as cause:
        raise ZoneInfoNotFoundError(name) from cause


@lru_cache(maxsize=1_024)
def _period(calendar: Calendar, now_h: int) -> tuple[int, int]:
    """Periods begin at whole hours, so all of an hour is in one: asked for again and again, computed once."""
    now_s = now_h * 3_600
    number = (now_s - calendar.begin_s(0)) // calendar.nominal_s
    while calendar.begin_s(number) > now_s:
        number -= 1
    while (end_s := calendar.begin_s(number + 1)) <= now_s:
        number += 1
    return calendar.begin_s(number), end_s


def begins_at_whole_hours(calendar: Calendar) -> bool:
    """Whether its periods begin at whole hours of UTC, now and in years to come. Raises ZoneInfoNotFoundError."""
    first = datetime.strptime(calendar.start, START_FORMAT)  # noqa: DTZ007 - a wall's
    zone = _zone(calendar.zone)
    days = (first.replace(year=year, month=month, day=1) for year in range(2020, 2040) for month in range(1, 13))
    return all(int(day.replace(tzinfo=zone).timestamp()) % 3_600 == 0 for day in days)
