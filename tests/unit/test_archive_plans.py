"""What a plan means for the table, and how plans and tokens are ordered."""

from dataclasses import replace

import pytest

from streams.archive.plans import Complete, Doubled, Found, Incomplete, Plan, Verdict, judge, mentions, token


def plan(first: int = 100, last: int = 199, rows: int = 100, epoch: int = 0, partition: int = 3) -> Plan:
    return Plan("heartbeats", partition, first, last, rows, 1_000, 2_000, epoch)


@pytest.mark.parametrize(
    ("planned", "found", "expected"),
    [
        pytest.param(plan(), Found(100, 100), Complete(), id="all there"),
        pytest.param(plan(), Found(0, 0), Incomplete(100), id="nothing there"),
        pytest.param(plan(), Found(40, 40), Incomplete(60), id="a part there"),
        pytest.param(plan(rows=97), Found(97, 97), Complete(), id="three records rejected"),
        pytest.param(plan(rows=97), Found(96, 96), Incomplete(1), id="three rejected, one missing"),
        pytest.param(plan(rows=0), Found(0, 0), Complete(), id="all rejected"),
        pytest.param(plan(), Found(105, 100), Doubled(5), id="five twice"),
        pytest.param(plan(), Found(100, 95), Doubled(5), id="as many rows as planned, but five twice"),
    ],
)
def test_verdicts(planned: Plan, found: Found, expected: Verdict) -> None:
    assert judge(planned, found) == expected


def test_a_later_plan_has_the_greater_revision_whenever_it_is_written() -> None:
    plans = [
        plan(0, 0),
        plan(0, 99),
        plan(100, 199),
        plan(100, 199).again(),
        plan(100, 199).again().again(),
        replace(plan(100, 199), epoch=100_000),  # a table refused it for a week
        plan(200, 200),
    ]
    revisions = [each.revision for each in plans]
    assert revisions == sorted(set(revisions))


def test_a_repair_has_a_token_of_its_own() -> None:
    assert token([plan()]) != token([plan().again()])


def test_a_token_names_each_of_its_plans_under_any_epoch() -> None:
    said = token([plan(), plan(partition=11)])
    assert mentions(said, plan())
    assert mentions(said, plan().again())
    assert mentions(said, plan(partition=11))
    assert not mentions(said, plan(partition=1))
    assert not mentions(said, plan(last=198))
    assert not mentions(said, Plan("probe-results", 3, 100, 199, 100, 0, 0))
    assert not mentions("", plan())
