"""The verdict: views and SQL against the ledger, each difference with the check that found it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from infra.oracle.guest import joined, results_of
from infra.oracle.identities import compare
from infra.oracle.ledger import Ledger, Results
from infra.oracle.objectives import COUNTS, PROBES, Promise
from infra.oracle.recompute import MINUTE_MS, SLICE_MS, Window, windows
from infra.oracle.sources import Sql, Views, quoted

RELATIVE_ERROR = 0.01
ROUNDING_US = 1  # a view shows whole microseconds
# Minutes that ended this long before the newest event must be final: lateness 10 s, clocks ahead 5 s, publishing.
SETTLED_MS = 20_000
KEPT_PER_CHECK = 5
# The store limits what it answers at once.
IDS_AT_ONCE = 2_000_000


@dataclass(slots=True)
class Verdict:
    """Figures of one judgement; `mismatches` has the first few of each check, as `check: what differs`."""

    slices_compared: int = 0
    minutes_compared: int = 0
    late: int = 0
    p99_worst_relative_error: float = 0.0
    missing: int = 0
    doubled: int = 0
    foreign: int = 0
    nodes_compared: int = 0
    nodes_down_seen: int = 0
    down_latest_ms: int = 0
    stalest_look_ms: int = 0
    false_downs: int = 0
    nodes_gone_seen: int = 0
    outages: int = 0
    zones_unclear: int = 0
    alarms: int = 0
    ignored: int = 0
    differences: int = 0
    mismatches: list[str] = field(default_factory=list)
    _told: Counter[str] = field(default_factory=Counter)

    @property
    def failed_checks(self) -> frozenset[str]:
        """Names of the checks that found a difference."""
        return frozenset(self._told)

    @property
    def agree(self) -> bool:
        """Whether nothing differs, and there was something to compare."""
        return self.differences == 0 and self.slices_compared > 0

    def differ(self, check: str, what: str, count: int = 1) -> None:
        """Notes a difference."""
        self.differences += count
        told = self._told[check]
        self._told[check] += 1
        if told < KEPT_PER_CHECK:
            self.mismatches.append(f"{check}: {what}")


def judge(ledger: Ledger, promises: Sequence[Promise], views: Views, sql: Sql, guest: str | None = None) -> Verdict:
    """Compares everything once. Raises UnavailableError when a view or a table does not answer.

    `guest` is a node that is no part of the fleet. What it sent is not in the ledger: its ids are not judged, and its
    results are added as SQL has them, since an SLO may select them.
    """
    verdict = Verdict()
    results = ledger.results if guest is None else joined(ledger.results, results_of(sql, guest))
    for source, events in ((PROBES, results), (COUNTS, ledger.requests)):
        asked = [promise for promise in promises if promise.source == source]
        judge_slices(verdict, events, asked, views)
        judge_minutes(verdict, events, asked, sql)
    judge_ids(verdict, ledger, sql, guest)
    dead = sql.number("SELECT count() FROM telemetry.dead_letters")
    if dead:
        verdict.differ("dead-letters", f"{dead} rows in telemetry.dead_letters; expected none", dead)
    return verdict


def judge_slices(verdict: Verdict, results: Results, promises: Sequence[Promise], views: Views) -> None:
    """Each second of each SLO in the views, empty ones too; the SLOs are about these results."""
    if not results.ts.size:
        return
    start = int(results.ts.min()) // SLICE_MS * SLICE_MS
    end = int(results.ts.max()) // SLICE_MS * SLICE_MS + SLICE_MS
    for promise in promises:
        shown = views.slices(promise.slo, start, end)
        verdict.late += sum(row.late for row in shown.values())
        windows_shown = {start: row.window for start, row in shown.items()}
        compare_windows(verdict, "slices", promise.slo, windows(results, promise, SLICE_MS), windows_shown)


def compare_windows(
    verdict: Verdict, check: str, slo: str, exact: Mapping[int, Window], shown: Mapping[int, Window]
) -> None:
    """Counts, sums and maxima must be equal, percentiles within 1 %; an absent window counts as empty."""
    for start in sorted(exact.keys() | shown.keys()):
        ours, theirs = exact.get(start), shown.get(start)
        verdict.slices_compared += check == "slices"
        if ours is None or theirs is None:
            expected, found = (0 if side is None else side.total for side in (ours, theirs))
            if expected != found:
                verdict.differ(check, f"{slo} at {start}: total is {found}; the ledger has {expected}")
            continue
        for name in ("total", "good", "sum_us", "max_us"):
            expected, found = getattr(ours, name), getattr(theirs, name)
            if expected != found:
                verdict.differ(check, f"{slo} at {start}: {name} is {found}; the ledger has {expected}")
        for name in ("p50_us", "p99_us"):
            expected, found = getattr(ours, name), getattr(theirs, name)
            error = relative_error(found, expected)
            if name == "p99_us":
                verdict.p99_worst_relative_error = max(verdict.p99_worst_relative_error, error)
            if error > RELATIVE_ERROR:
                verdict.differ(
                    check,
                    f"{slo} at {start}: {name} is {found}; the ledger has {expected}, so it is off by {error:.2%}",
                )


def relative_error(found: float, exact: float) -> float:
    """How far `found` is off, as a share of `exact`; one microsecond is rounding."""
    off = abs(found - exact)
    return 0.0 if off <= ROUNDING_US else off / max(exact, 1)


def judge_ids(verdict: Verdict, ledger: Ledger, sql: Sql, guest: str | None) -> None:
    """Every id of the ledger is stored exactly once, and nothing else is, but for rows of the guest."""
    of_guest = f"node_id = {quoted(guest or '')}"  # no node has an empty name
    for table, sent in (
        ("heartbeats", ledger.heartbeat_ids),
        ("probe_results", ledger.result_ids),
        ("request_counts", ledger.count_ids),
    ):
        verdict.ignored += sql.number(f"SELECT count() FROM telemetry.{table} WHERE {of_guest}")  # noqa: S608 - quoted
        ids = f"SELECT node_id, boot_id, seq FROM telemetry.{table} WHERE NOT {of_guest}"  # noqa: S608 - quoted
        parts = 1 + len(sent) // IDS_AT_ONCE
        rows = (sql.rows(f"{ids} AND cityHash64(node_id) % {parts} = {part}") for part in range(parts))
        census = compare(sent, chain.from_iterable(rows))
        verdict.missing += census.missing
        verdict.doubled += census.doubled
        verdict.foreign += census.foreign
        wrong = census.missing + census.doubled + census.foreign
        if wrong:
            verdict.differ(
                f"ids of {table}",
                f"{census.missing} missing, {census.doubled} doubled, {census.foreign} foreign "
                f"among {census.rows} rows for {len(sent)} records sent: {'; '.join(census.examples)}",
                wrong,
            )


def judge_minutes(verdict: Verdict, results: Results, promises: Sequence[Promise], sql: Sql) -> None:
    """Final minutes in `slo_windows` equal the ledger's, and minutes long past are there."""
    if not results.ts.size:
        return
    stored = _stored_minutes(sql)
    settled_to = int(results.ts.max()) - SETTLED_MS
    for promise in promises:
        final = stored.get(promise.slo, {})
        exact = windows(results, promise, MINUTE_MS)
        due = {start: window for start, window in exact.items() if start in final or start + MINUTE_MS <= settled_to}
        verdict.minutes_compared += len(due)
        compare_windows(verdict, "minutes", promise.slo, due, final)


def _stored_minutes(sql: Sql) -> dict[str, dict[int, Window]]:
    query = (
        "SELECT slo, toUnixTimestamp64Milli(window_start), total, good, sum_us, max_us, p50_us, p99_us "
        "FROM telemetry.slo_windows FINAL WHERE window_s = 60 AND final"
    )
    minutes: dict[str, dict[int, Window]] = {}
    for line in sql.rows(query):
        slo, *figures = line.decode().split("\t")
        start, *rest = map(int, figures)
        minutes.setdefault(slo, {})[start] = Window(*rest)
    return minutes
