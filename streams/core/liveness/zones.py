"""The outage guard: many nodes of one zone that fall silent together are one outage, not as many dead nodes."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

Zone = tuple[str, str]  # region, zone
OK, OUTAGE = "OK", "OUTAGE"

MIN_NODES = 10
BEGINS_ABOVE_PERCENT = 20
ENDS_AT_PERCENT = 10  # lower, so that a zone at the edge does not flap

# `expected`: nodes that should speak; `missing`: those of them that are SUSPECT, or DOWN but only just.
ZONE_COUNTS = pl.Schema(
    {
        "region": pl.String(),
        "zone": pl.String(),
        "expected": pl.Int64(),
        "missing": pl.Int64(),
        "last_seen_ms": pl.Int64(),
    }
)


@dataclass(frozen=True, slots=True)
class ZoneState:
    """OK or OUTAGE, and since when."""

    state: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """A zone's new state; `previous` is None for one not known before."""

    zone: Zone
    state: str
    previous: str | None
    reason: str
    since_ms: int
    last_seen_ms: int
    missing: int
    expected: int


@dataclass(frozen=True, slots=True)
class ZoneStep:
    """All zones after a step, and what has changed."""

    zones: dict[Zone, ZoneState]
    changes: tuple[ZoneChange, ...]

    @property
    def outages(self) -> frozenset[Zone]:
        """Zones in an outage."""
        return frozenset(zone for zone, known in self.zones.items() if known.state == OUTAGE)


def step(previous: Mapping[Zone, ZoneState], counts: pl.DataFrame, now_ms: int) -> ZoneStep:
    """Judge the zones by `counts` (ZONE_COUNTS; of several partitions one below the other).

    A zone is watched from MIN_NODES expected nodes on, until no node is expected; it is announced when first watched.
    """
    zones: dict[Zone, ZoneState] = {}
    changes: list[ZoneChange] = []
    for region, zone, expected, missing, last_seen_ms in _watched(previous, counts).sort("region", "zone").rows():
        key = (region, zone)
        known = previous.get(key)
        before = None if known is None else known.state
        state = _state(before, expected, missing)
        if expected:
            zones[key] = known if known is not None and state == before else ZoneState(state, now_ms)
        if state != before:
            reason = "telemetry-outage" if state == OUTAGE else "new-zone" if before is None else "outage-over"
            changes.append(ZoneChange(key, state, before, reason, now_ms, last_seen_ms, missing, expected))
    return ZoneStep(zones, tuple(changes))


def _watched(previous: Mapping[Zone, ZoneState], counts: pl.DataFrame) -> pl.DataFrame:
    """The zones to look at: nodes say themselves in which they are, so there may be as many as nodes."""
    by = ("region", "zone")
    summed = counts.group_by(by).agg(pl.col("expected", "missing").sum(), pl.col("last_seen_ms").max())
    known = pl.DataFrame(list(previous), schema=dict.fromkeys(by, pl.String), orient="row")
    small = known.join(summed, on=by, how="left").fill_null(0).filter(pl.col("expected") < MIN_NODES)
    return pl.concat([summed.filter(pl.col("expected") >= MIN_NODES), small])


def _state(before: str | None, expected: int, missing: int) -> str:
    if before == OUTAGE:
        return OK if expected < MIN_NODES or 100 * missing <= ENDS_AT_PERCENT * expected else OUTAGE
    return OUTAGE if expected >= MIN_NODES and 100 * missing > BEGINS_ABOVE_PERCENT * expected else OK
