"""The outage guard: what a zone is, step by step."""

import polars as pl
import pytest

from streams.core.liveness.zones import OK, OUTAGE, ZONE_COUNTS, Zone, ZoneState, step

NOW_MS = 1_763_000_000_000
HERE: Zone = ("eu", "a")


def counted(*rows: tuple[int, int], zone: Zone = HERE) -> pl.DataFrame:
    """A row for each partition: expected, missing."""
    return pl.DataFrame([(*zone, *row, NOW_MS - 5) for row in rows], schema=ZONE_COUNTS, orient="row")


# (expected, missing) of each step → the state announced in it, None: nothing.
STORIES: dict[str, tuple[list[tuple[int, int]], list[str | None]]] = {
    "a zone is announced once": ([(10, 0), (10, 0)], [OK, None]),
    "nine nodes are no zone to watch": ([(9, 9)], [None]),
    "a fifth may be missing": ([(10, 0), (10, 2)], [OK, None]),
    "more than a fifth is an outage": ([(10, 0), (10, 3)], [OK, OUTAGE]),
    "one outage, however long and bad": ([(100, 21), (100, 60), (100, 100)], [OUTAGE, None, None]),
    "a zone already out is announced as such": ([(10, 10)], [OUTAGE]),
    "it is over when a tenth is missing": ([(100, 21), (100, 11), (100, 10)], [OUTAGE, None, OK]),
    "and may begin again": ([(10, 3), (10, 0), (10, 3)], [OUTAGE, OK, OUTAGE]),
    "a zone that grows is announced when it is large enough": ([(9, 0), (10, 0)], [None, OK]),
    "an outage ends when too few are left": ([(10, 3), (9, 9)], [OUTAGE, OK]),
    "or nobody": ([(10, 3), (0, 0), (0, 0)], [OUTAGE, OK, None]),
    "a watched zone that shrinks has no outage": ([(10, 0), (9, 9), (10, 1)], [OK, None, None]),
    "a zone that nobody is expected in is forgotten, and announced anew": ([(10, 0), (0, 0), (10, 0)], [OK, None, OK]),
}


@pytest.mark.parametrize(("counts", "announced"), STORIES.values(), ids=STORIES.keys())
def test_a_zone_is_announced_when_it_changes(counts: list[tuple[int, int]], announced: list[str | None]) -> None:
    zones: dict[Zone, ZoneState] = {}
    heard = list[str | None]()
    for second, row in enumerate(counts):
        done = step(zones, counted(row), NOW_MS + 1_000 * second)
        heard.append(done.changes[0].state if done.changes else None)
        zones = done.zones
        assert done.outages == {zone for zone, known in zones.items() if known.state == OUTAGE}
    assert heard == announced


def test_a_change_says_since_when_from_what_and_how_many() -> None:
    begun = step({HERE: ZoneState(OK, NOW_MS - 9_000)}, counted((8, 4), (12, 1)), NOW_MS)
    (change,) = begun.changes
    assert (change.zone, change.state, change.previous, change.reason) == (HERE, OUTAGE, OK, "telemetry-outage")
    assert (change.since_ms, change.last_seen_ms, change.missing, change.expected) == (NOW_MS, NOW_MS - 5, 5, 20)
    assert begun.zones == {HERE: ZoneState(OUTAGE, NOW_MS)}
    over = step(begun.zones, counted((20, 0)), NOW_MS + 60_000)
    assert [(c.state, c.previous, c.reason) for c in over.changes] == [(OK, OUTAGE, "outage-over")]


def test_an_outage_in_a_zone_that_no_partition_counts_anymore_ends() -> None:
    done = step({HERE: ZoneState(OUTAGE, NOW_MS), ("us", "b"): ZoneState(OK, NOW_MS)}, counted(), NOW_MS + 1)
    assert [(c.zone, c.state, c.expected) for c in done.changes] == [(HERE, OK, 0)]
    assert done.zones == {}


def test_zones_of_one_name_in_two_regions_are_judged_apart() -> None:
    done = step({}, pl.concat([counted((10, 9)), counted((10, 0), zone=("us", "a"))]), NOW_MS)
    assert {change.zone: change.state for change in done.changes} == {HERE: OUTAGE, ("us", "a"): OK}
