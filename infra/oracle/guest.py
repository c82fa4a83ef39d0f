"""A node beside the fleet, such as this host's agent: what it sent stands in no ledger, only in SQL."""

import numpy as np

from infra.oracle.ledger import Names, Results
from infra.oracle.sources import Sql, quoted

_COLUMNS = "toUnixTimestamp64Milli(ts), latency_us, toUInt8(success), service, endpoint, region, kind"


def results_of(sql: Sql, node_id: str) -> Results:
    """Its probe results. Raises UnavailableError."""
    query = f"SELECT {_COLUMNS} FROM telemetry.probe_results WHERE node_id = {quoted(node_id)}"  # noqa: S608 - quoted
    rows = [line.decode().split("\t") for line in sql.rows(query)]
    ts, latency_us, success, *names = zip(*rows, strict=True) if rows else ((),) * 7
    return Results(
        np.array(ts, np.int64), np.array(latency_us, np.int64), np.array(success, np.int64) == 1, *map(_names, names)
    )


def joined(ours: Results, theirs: Results) -> Results:
    """Both, ours first."""

    def names(column: str) -> Names:
        first, second = ours.name(column), theirs.name(column)
        codes = np.concatenate([first.codes, second.codes + len(first.values)])
        return Names(codes, (*first.values, *second.values))

    return Results(
        ts=np.concatenate([ours.ts, theirs.ts]),
        latency_us=np.concatenate([ours.latency_us, theirs.latency_us]),
        success=np.concatenate([ours.success, theirs.success]),
        service=names("service"),
        endpoint=names("endpoint"),
        region=names("region"),
        kind=names("kind"),
    )


def _names(column: tuple[str, ...]) -> Names:
    values = tuple(sorted(set(column)))
    return Names(np.array([values.index(name) for name in column], np.int64), values)
