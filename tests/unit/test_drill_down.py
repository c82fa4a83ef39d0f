"""Where a view sends its reader next: queries that the library has, with parameters that they take."""

from datetime import UTC, datetime

import pytest

from streams.core.drill_down import next_queries
from streams.core.objectives import Objective, Selector
from streams.core.sources import COUNTS
from streams.sql.library import find

HOUR_MS = 3_600_000
TO_MS = 1_772_449_200_000  # 2026-03-02T11:00:00Z
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHOLE = Objective(
    id="o",
    service="checkout",
    display_name="",
    selector=Selector("check out's", "/pay", "eu", "http"),
    latency_us_le=200_000,
    target=0.99,
    window_s=86_400,
)


@pytest.mark.parametrize(
    "objective", [WHOLE, Objective("p", "s", "", Selector(), None, 0.9, 3_600)], ids=["selective", "of everything"]
)
def test_the_library_takes_every_query_as_it_is(objective: Objective) -> None:
    queries = next_queries(objective, TO_MS - HOUR_MS, TO_MS)
    assert [query.name for query in queries][:3] == ["burning_slos", "worst_series", "worst_nodes"]
    for query in queries:
        filled = find(query.name).fill(query.parameters, NOW)
        assert {filled[name] for name in ("until", "alert_at") if name in filled} == {"2026-03-02 11:00:00.000"}
        assert filled.get("since", "2026-03-02 10:00:00.000") == "2026-03-02 10:00:00.000"


def test_what_is_selected_is_asked_for() -> None:
    _, series, *_ = next_queries(WHOLE, TO_MS - HOUR_MS, TO_MS)
    assert series.command == (
        "fleetbeat sql --name worst_series --param 'service=check out'\"'\"'s' --param endpoint=/pay --param region=eu "
        "--param kind=http --param latency_us_le=200000 --param since=2026-03-02T10:00:00Z "
        "--param until=2026-03-02T11:00:00Z"
    )


def test_counted_requests_have_no_nodes() -> None:
    counted = Objective("c", "s", "", Selector("s"), None, 0.9, 3_600, source=COUNTS)
    assert [query.name for query in next_queries(counted, 0, TO_MS)] == ["burning_slos"]
