"""One answer from those of several workers: pure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from streams.core.liveness.states import STATES
from streams.core.routing import not_whole
from streams.processors.node_recovery import SOURCE
from streams.processors.queries import NotHereError

Json = dict[str, Any]

# Nodes name their zones themselves: of more than these only the largest are shown.
MAX_ZONES = 1_000
# A worker tells another one about so many; of more there is no list, because each may have left out another one's.
MAX_SHARED_ZONES = 20_000


@contextmanager
def readable() -> Iterator[None]:
    """While answers of other workers are read. Raises NotHereError for what no worker of this version answers."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as cause:
        raise NotHereError(
            f"the workers' answers cannot be put together ({type(cause).__name__}: {cause}); "
            "expected workers of this version at the addresses that the group names"
        ) from cause


@readable()
def require_whole(answers: Sequence[Json], topic: str, partitions: int) -> None:
    """Raises NotHereError unless the answers rest on each partition of a topic once."""
    shares = [[int(partition) for partition in answer.get("offsets", {}).get(topic, ())] for answer in answers]
    why = not_whole(shares, partitions)
    if why is not None:
        raise NotHereError(
            f"{why} of {topic}; try again in a few seconds "
            "(workers join or leave, or two of them have the same address: see --advertise)"
        )


@readable()
def merged_nodes(answers: Sequence[Json], limit: int) -> Json:
    """The first `limit` nodes of all. Each answer has its own first ones, in order."""
    nodes = sorted((node for answer in answers for node in answer["nodes"]), key=_node_order)[:limit]
    more = nodes[-1]["node_id"] if len(nodes) == limit else None
    return {"nodes": nodes, "next": more, **merged_basis(answers, SOURCE)}


@readable()
def merged_fleet(answers: Sequence[Json]) -> Json:
    """Figures summed; zones that several workers know are one, lost since the first of them says so."""
    zones = _merged_zones(answers)
    largest = sorted(zones, key=lambda zone: -int(zone["known"]))[:MAX_ZONES]
    whole = all(len(answer["zones"]) == answer["zones_known"] for answer in answers)
    outages: dict[tuple[str, str], int] = {}
    for outage in (outage for answer in answers for outage in answer["outages"]):
        place = outage["region"], outage["zone"]
        outages[place] = min(outages.get(place, outage["since_ms"]), outage["since_ms"])
    return {
        "known": sum(answer["known"] for answer in answers),
        "nodes": _summed(answers, "nodes", STATES),
        "totals": _summed(answers, "totals", answers[0]["totals"]),
        "zones_known": len(zones) if whole else max(answer["zones_known"] for answer in answers),
        "zones": sorted(largest, key=_place) if whole else [],
        "outages": [
            {"region": region, "zone": zone, "since_ms": since_ms}
            for (region, zone), since_ms in sorted(outages.items())
        ],
        **merged_basis(answers, SOURCE),
    }


def merged_basis(answers: Sequence[Json], topic: str) -> Json:
    """As complete as the least complete of them."""
    offsets = {int(p): offset for answer in answers for p, offset in answer["offsets"][topic].items()}
    return {
        "complete_to_ms": min(answer["complete_to_ms"] for answer in answers),
        "staleness_ms": max(answer["staleness_ms"] for answer in answers),
        "offsets": {topic: {str(partition): offset for partition, offset in sorted(offsets.items())}},
    }


def _merged_zones(answers: Sequence[Json]) -> list[Json]:
    zones: dict[tuple[str, str], Json] = {}
    for zone in (zone for answer in answers for zone in answer["zones"]):
        known = zones.get(_place(zone))
        zones[_place(zone)] = zone if known is None else _one_zone(known, zone)
    return list(zones.values())


def _one_zone(first: Json, second: Json) -> Json:
    since = [zone["outage_since_ms"] for zone in (first, second) if zone["outage_since_ms"] is not None]
    return {
        **first,
        "known": first["known"] + second["known"],
        "nodes": _summed((first, second), "nodes", STATES),
        "outage_since_ms": min(since, default=None),
    }


def _summed(answers: Sequence[Json], name: str, keys: Sequence[str] | Json) -> Json:
    return {key: sum(answer[name][key] for answer in answers) for key in keys}


def _place(zone: Json) -> tuple[str, str]:
    return zone["region"], zone["zone"]


def _node_order(node: Json) -> str:
    return str(node["node_id"])
