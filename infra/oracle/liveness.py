"""The verdict on liveness: what was seen while the fleet ran, and what is left of it, against the ledger."""

from infra.oracle.judge import Verdict
from infra.oracle.outages import judge_outages
from infra.oracle.sightings import judge_sightings
from infra.oracle.silences import append_times, silences
from infra.oracle.sources import Sql, Views
from infra.oracle.tallies import judge_tallies
from infra.oracle.watch import Watched

APPENDED = "SELECT node_id, boot_id, seq, toUnixTimestamp64Milli(received_at) FROM telemetry.heartbeats"


def judge_liveness(verdict: Verdict, watched: Watched, views: Views, sql: Sql) -> None:
    """Compares everything once. Raises UnavailableError when a view or a table does not answer."""
    beats, looks, guest = watched.beats, watched.looks, watched.guest
    judge_tallies(verdict, beats, views, sql, guest)
    append_ms = append_times(beats, sql.rows(APPENDED))
    if append_ms is None:
        verdict.differ("append times", "telemetry.heartbeats lacks some of the ledger; expected all of it")
        return
    found = silences(beats, append_ms)
    judge_sightings(verdict, found, watched)
    # Afterwards all nodes are silent: that is the end of the fleet and no finding.
    end_ms = looks[-1].ended_ms if looks else 0
    rows = [row for row in sql.node_states() if row.received_ms <= end_ms and row.subject != guest]
    judge_outages(verdict, found, watched, rows)
