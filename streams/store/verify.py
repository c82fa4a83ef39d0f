"""Rollups against what they are made of, over a range of event time."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from streams.archive.retention import whole_from
from streams.archive.rollups import Cells, Difference, Rollup, coarse, differences, differing, filled, rebuild, rollups
from streams.store.places import AskedWronglyError, Place, read_range
from streams.store.steps import Steps

MOST = 20
_PAUSE_S, _TRIES = 1.0, 3
"""While an archive inserts, a minute differs for the moment between a raw part and what views make of it."""


def run_verify(place: Place, since: str, until: str, *, repair: bool) -> int:
    """Prints every difference, at most 20 a table; 1 when there is one. Raises AskedWronglyError, StoreError."""
    if repair and place.url:
        raise AskedWronglyError("--repair beside --url: that address only reads; expected --store or --clickhouse")
    begin, end = read_range(since, until)
    with place.opened() as client:
        return max(_verify(client, rollup, begin, end, repair=repair) for rollup in rollups().values())


def _verify(client: Any, rollup: Rollup, begin: datetime, end: datetime, *, repair: bool) -> int:  # noqa: ANN401
    whole = whole_from(client, rollup.source)
    found, expired, repaired = list[Difference](), 0, 0
    hours = filled(client, rollup, _minute(begin), end)
    with Steps(rollup.table) as steps:
        for done, cells in enumerate(hours):
            steps.at(done, len(hours), f"{datetime.fromtimestamp(cells.starts[0], UTC):%Y-%m-%dT%H:%MZ}")
            if cells.day < whole:
                expired += 1
                continue
            wrong = _lasting(client, rollup, cells)
            if wrong and repair:
                _repair(client, rollup, cells)
                repaired += 1
                wrong = _lasting(client, rollup, cells)
            found += wrong
    for difference in found[:MOST]:
        print(sentence(difference))
    if len(found) > MOST:
        print(f"{rollup.table}: {len(found) - MOST} differences more")
    print(
        f"{rollup.table}{f' and {rollup.coarser.table}' if rollup.coarser else ''}: {len(hours) - expired} hours "
        f"compared with {rollup.source}, {len(found)} differences"
        + (f"; {repaired} hours were made again" if repaired else "")
        + (f"; {expired} hours arrived before {whole}, raw rows of that time have expired" if expired else "")
    )
    return int(bool(found))


def _lasting(client: Any, rollup: Rollup, cells: Cells) -> list[Difference]:  # noqa: ANN401
    """Differences that do not go away by themselves."""
    for attempt in range(_TRIES):
        found = differences(client, rollup, cells)
        if rollup.coarser:
            found += differences(client, rollup.coarser, coarse(cells, rollup.coarser))
        if not found:
            break
        if attempt < _TRIES - 1:
            time.sleep(_PAUSE_S)
    return found


def _repair(client: Any, rollup: Rollup, cells: Cells) -> None:  # noqa: ANN401
    wrong = differing(client, rollup, cells)
    if wrong.starts:
        rebuild(client, rollup, wrong)
    elif rollup.coarser:
        rebuild(client, rollup.coarser, coarse(cells, rollup.coarser))


def sentence(difference: Difference) -> str:
    """One difference for people: minute, series, and the figures that are not the same."""
    source, kept = difference.source or {}, difference.kept or {}
    names = [name for name in {**source, **kept} if source.get(name) != kept.get(name)]
    series = " ".join(f"{name}={value}" for name, value in difference.series.items())
    return (
        f"{difference.rollup} {difference.start:%Y-%m-%dT%H:%MZ} arrived {difference.received_on} {series}: "
        f"made of its rows {_figures(source, names)}; found {_figures(kept, names)}"
    )


def _figures(measures: Mapping[str, Any], names: list[str]) -> str:
    return " ".join(f"{name}={measures[name]}" for name in names) if measures else "nothing"


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
