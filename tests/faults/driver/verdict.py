"""The oracle's judgement of a run under faults: ids, slices, lateness, windows and dead letters against the ledgers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from infra.oracle.judge import Verdict, judge_ids, judge_minutes, judge_slices
from infra.oracle.ledger import Beats, Ledger, Names, Results
from infra.oracle.objectives import Promise
from infra.oracle.recompute import MINUTE_MS, SLICE_MS, judged, selected, windows
from infra.oracle.sources import Counts, Sql, quoted
from infra.oracle.tallies import compare_nodes, exact
from schemas.records import Heartbeat
from tests.faults.driver.guests import Sent
from tests.faults.driver.views import ManyViews

LATENESS_MS = 10_000
# Seconds are kept for ten minutes; older events are judged in windows only.
SLICES_KEPT_MS = 480_000
# Minutes that late events still change in `slo_windows`.
MINUTES_KEPT_MS = 6 * 3_600_000
HOUR_S = 3_600
FORGED = "forged-"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was sent, and where to look for it."""

    ledger: Ledger
    promises: Sequence[Promise]
    guests: Sequence[Sent]
    beats: Beats
    views: ManyViews
    sql: Sql


@dataclass(frozen=True, slots=True)
class Balance:
    """Events that are not there and events counted more than once: rows, and counts of the SLO that differs most."""

    lost: int
    doubled: int


def judge_run(evidence: Evidence) -> Verdict:
    """Compares everything once. Raises UnavailableError while something does not answer."""
    verdict = Verdict()
    recent = _since(evidence.ledger.results, SLICES_KEPT_MS)
    judge_ids(verdict, evidence.ledger, evidence.sql, None)
    judge_letters(verdict, evidence.guests, evidence.sql)
    judge_slices(verdict, recent, evidence.promises, evidence.views)
    judge_late(verdict, evidence, int(recent.ts.min()))
    judge_windows(verdict, evidence)
    judge_minutes(verdict, _since(evidence.ledger.results, MINUTES_KEPT_MS), evidence.promises, evidence.sql)
    judge_nodes(verdict, evidence)
    return verdict


def judge_letters(verdict: Verdict, guests: Sequence[Sent], sql: Sql) -> None:
    """Every record of poison is a dead letter with its reason, and nothing else is one."""
    wanted = {(each.topic, each.partition, each.offset): each.why for each in guests if each.record is None}
    found = {}
    for line in sql.rows("SELECT topic, partition, offset, reason FROM telemetry.dead_letters FINAL"):
        topic, partition, offset, reason = line.decode().split("\t")
        found[topic, int(partition), int(offset)] = reason
    for place in sorted(wanted.keys() | found.keys()):
        if wanted.get(place) != found.get(place):
            verdict.differ("dead-letters", f"{place}: {found.get(place)}; expected {wanted.get(place)}")


def judge_late(verdict: Verdict, evidence: Evidence, from_ms: int) -> None:
    """How many of each slice were late: those whose slice was sealed when they were appended, by the log in SQL."""
    for promise in evidence.promises:
        where = " AND ".join([f"{column} = {quoted(value)}" for column, value in promise.where] or ["true"])
        query = (
            "SELECT intDiv(toUnixTimestamp64Milli(ts), 1000) * 1000 AS start, count() FROM ("  # noqa: S608 - quoted
            "SELECT ts, service, endpoint, region, kind, toUnixTimestamp64Milli(max(received_at) OVER "
            "(PARTITION BY kafka_partition ORDER BY kafka_offset ROWS UNBOUNDED PRECEDING)) AS frontier "
            f"FROM telemetry.probe_results) WHERE start + {SLICE_MS + LATENESS_MS} <= frontier AND {where} "
            "GROUP BY start"
        )
        rows = (line.split(b"\t") for line in evidence.sql.rows(query))
        exact = {int(start): int(count) for start, count in rows}
        start = from_ms // SLICE_MS * SLICE_MS
        end = int(evidence.ledger.results.ts.max()) // SLICE_MS * SLICE_MS + SLICE_MS
        for begin, shown in evidence.views.slices(promise.slo, start, end).items():
            if shown.late != exact.get(begin, 0):
                expected = exact.get(begin, 0)
                verdict.differ("late", f"{promise.slo} at {begin}: late is {shown.late}; the log has {expected}")


def judge_windows(verdict: Verdict, evidence: Evidence) -> None:
    """The long sliding windows, which hold also what is too old for slices."""
    results = evidence.ledger.results
    for promise in evidence.promises:
        chosen, good = selected(results, promise), judged(results, promise)
        for shown in evidence.views.sums(promise.slo):
            if shown.window_s < HOUR_S:
                continue  # it moves on while we look
            inside = chosen & (results.ts >= shown.from_ms) & (results.ts < shown.to_ms)
            latency = results.latency_us[inside]
            exact = (int(inside.sum()), int((inside & good).sum()), int(latency.sum()), int(latency.max(initial=0)))
            found = (shown.total, shown.good, shown.sum_us, shown.max_us)
            if found != exact:
                verdict.differ(
                    "windows",
                    f"{promise.slo} over {shown.window_s} s: (total, good, sum_us, max_us) is {found}; "
                    f"the ledger has {exact}",
                )


def judge_nodes(verdict: Verdict, evidence: Evidence) -> None:
    """Heartbeats, gaps and restarts of every true node. Of several workers none lists all nodes: they are not asked."""
    if len(evidence.views.workers) > 1:
        return
    expected = exact(evidence.beats)
    beats = Counter(each.record.node_id for each in evidence.guests if isinstance(each.record, Heartbeat))
    expected |= {node: Counts(count, 0, 0) for node, count in beats.items()}
    true = {node: counts for node, counts in expected.items() if not node.startswith(FORGED)}
    shown = {node.node_id: node for node in evidence.views.nodes() if not node.node_id.startswith(FORGED)}
    compare_nodes(verdict, true, shown)


def balance(evidence: Evidence, verdict: Verdict) -> Balance:
    """Raises UnavailableError."""
    lost = doubled = 0
    recent = _since(evidence.ledger.results, SLICES_KEPT_MS)
    start = int(recent.ts.min()) // SLICE_MS * SLICE_MS
    end = int(recent.ts.max()) // SLICE_MS * SLICE_MS + SLICE_MS
    for promise in evidence.promises:
        exact = {begin: window.total for begin, window in windows(recent, promise, SLICE_MS).items()}
        found = {begin: row.window.total for begin, row in evidence.views.slices(promise.slo, start, end).items()}
        off = [found.get(begin, 0) - exact.get(begin, 0) for begin in exact.keys() | found.keys()]
        lost = max(lost, -sum(each for each in off if each < 0))
        doubled = max(doubled, sum(each for each in off if each > 0))
    return Balance(verdict.missing + lost, verdict.doubled + doubled)


def _since(results: Results, kept_ms: int) -> Results:
    """Those of the last `kept_ms`, whole minutes."""
    kept = results.ts >= (results.ts.max() - kept_ms) // MINUTE_MS * MINUTE_MS
    return replace(
        results,
        ts=results.ts[kept],
        latency_us=results.latency_us[kept],
        success=results.success[kept],
        service=_rows(results.service, kept),
        endpoint=_rows(results.endpoint, kept),
        region=_rows(results.region, kept),
        kind=_rows(results.kind, kept),
    )


def _rows(names: Names, kept: npt.NDArray[np.bool_]) -> Names:
    return Names(names.codes[kept], names.values)
