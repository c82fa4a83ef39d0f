"""Answers of several workers put together are what one worker with all of it would answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.liveness.states import STATES
from streams.processors.queries import NotHereError
from streams.views.merging import MAX_ZONES, merged_fleet, merged_nodes, require_whole

Json = dict[str, Any]


def basis(*partitions: int, complete: int = 9, stale: int = 1) -> Json:
    return {
        "complete_to_ms": complete,
        "staleness_ms": stale,
        "offsets": {"heartbeats": {str(partition): 10 + partition for partition in partitions}},
    }


@given(
    st.lists(st.sets(st.text("abé-", min_size=1, max_size=3), max_size=12), min_size=1, max_size=4), st.integers(1, 15)
)
def test_the_first_nodes_of_all_are_among_the_first_of_each(shares: list[set[str]], limit: int) -> None:
    everyone = sorted(set().union(*shares))
    taken: set[str] = set()
    answers = []
    for number, share in enumerate(shares):
        own = sorted(share - taken)[:limit]
        taken |= share
        answers.append({"nodes": [{"node_id": name} for name in own], **basis(number)})
    merged = merged_nodes(answers, limit)
    assert [node["node_id"] for node in merged["nodes"]] == everyone[:limit]
    assert merged["next"] == (everyone[limit - 1] if len(everyone) >= limit else None)


def test_an_answer_is_as_complete_as_its_least_complete_part() -> None:
    parts = [{"nodes": [], **basis(2, 0, complete=5, stale=3)}, {"nodes": [], **basis(1, complete=7, stale=8)}]
    assert merged_nodes(parts, 1) == {
        "nodes": [],
        "next": None,
        "complete_to_ms": 5,
        "staleness_ms": 8,
        "offsets": {"heartbeats": {"0": 10, "1": 11, "2": 12}},
    }


def zone(name: str, up: int, outage_since_ms: int | None = None) -> Json:
    states = {**dict.fromkeys(STATES, 0), "UP": up}
    return {"region": "eu", "zone": name, "known": up, "nodes": states, "outage_since_ms": outage_since_ms}


def fleet(*zones: Json, partition: int, known: int | None = None) -> Json:
    sums = sum(each["known"] for each in zones)
    return {
        "known": sums,
        "nodes": {**dict.fromkeys(STATES, 0), "UP": sums},
        "totals": {"heartbeats": 100, "lost": 2, "restarts": 1, "refused": partition},
        "zones_known": len(zones) if known is None else known,
        "zones": list(zones),
        "outages": [],
        **basis(partition),
    }


def test_counts_are_summed_zone_by_zone() -> None:
    merged = merged_fleet([fleet(zone("b", 2), zone("a", 3, 9), partition=0), fleet(zone("a", 4, 7), partition=1)])
    assert (merged["known"], merged["nodes"]["UP"], merged["zones_known"]) == (9, 9, 2)
    assert merged["totals"] == {"heartbeats": 200, "lost": 4, "restarts": 2, "refused": 1}
    assert merged["zones"] == [zone("a", 7, 7), zone("b", 2)]


def test_of_many_zones_the_largest_of_all_are_shown() -> None:
    """One that is small at each worker may be large."""
    first = [zone(f"{number:05}", 2) for number in range(MAX_ZONES)]
    second = [zone("small", 1), *(zone(f"x{number:05}", 2) for number in range(MAX_ZONES))]
    merged = merged_fleet([fleet(*first, zone("small", 2), partition=0), fleet(*second, partition=1)])
    assert (merged["zones_known"], len(merged["zones"])) == (2 * MAX_ZONES + 1, MAX_ZONES)
    assert zone("small", 3) in merged["zones"]


def test_zones_that_a_worker_has_left_out_are_not_summed_without_it() -> None:
    merged = merged_fleet([fleet(zone("a", 1), partition=0, known=30_000), fleet(zone("a", 5), partition=1)])
    assert (merged["known"], merged["zones"], merged["zones_known"]) == (6, [], 30_000)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([basis(0)], r"no worker answers for partitions \[1\] of heartbeats; try again in a few seconds"),
        ([basis(0, 1), basis(1)], r"several workers answer for partitions \[1\] of heartbeats"),
        ([basis(0), {"error": "not of this version"}], r"no worker answers for partitions \[1\]"),
        ([], r"no worker answers for partitions \[0, 1\]"),
    ],
)
def test_a_part_is_not_taken_for_all(answers: list[Json], says: str) -> None:
    with pytest.raises(NotHereError, match=says):
        require_whole(answers, "heartbeats", 2)
    require_whole([basis(1), basis(0)], "heartbeats", 2)
