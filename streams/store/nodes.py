"""Everything about one node, gone on request; what counted it is made again."""

import signal
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from schemas.rules import KEYED_BY_NODE
from streams.archive.blocks import Route, routes
from streams.archive.ddl import DATABASE
from streams.archive.ingest import Ingest, UnsettledError
from streams.archive.plans import Expiring, Incomplete, Plan, PlanStore, where
from streams.archive.retention import whole_from
from streams.archive.rollups import Cells, Rollup, by_minute, make_equal, rollups
from streams.store.places import AskedWronglyError, Place, StoreError, literal
from streams.store.steps import Steps

_PARTITIONS = range(1 << 16)
_WAIT_S, _PAUSE_S = 120.0, 1.0
"""Of a minute that is still inserted into: then it is over."""


@dataclass(frozen=True, slots=True)
class _Holding:
    """Rows of the node in one table."""

    route: Route
    condition: str
    rows: int


def run_delete_node(place: Place, node: str, *, yes: bool) -> int:
    """Deletes after a confirmation; 0 when nothing of the node is left. Raises AskedWronglyError, StoreError."""
    with place.opened() as client:
        held = _holdings(client, node)
        if not any(holding.rows for holding in held):
            print(f"node {node}: no rows; if a deletion was broken off: `fleetbeat store verify --repair --from -14d`")
            return 0
        for holding in held:
            print(f"{_short(holding.route)}: {holding.rows:,} rows of node {node}")
        if not (yes or _confirmed()):
            print("nothing was changed", file=sys.stderr)
            return 2
        for holding in held:
            _require_settled(client, holding.route)
        for holding in held:
            if holding.rows:
                _delete(client, holding)
        left = sum(holding.rows for holding in _holdings(client, node))
    if left:
        raise StoreError(f"node {node}: {left} rows have arrived meanwhile; stop what sends them, and delete again")
    return 0


def _holdings(client: Any, node: str) -> list[_Holding]:  # noqa: ANN401
    name = literal(node)
    keyed = ", ".join(map(literal, sorted(KEYED_BY_NODE)))
    conditions = {
        "node_states": f"subject = {name}",
        "dead_letters": f"key = {name} AND topic IN ({keyed})",
        **dict.fromkeys(rollups(), f"node_id = {name}"),
    }
    return [
        _Holding(route, conditions[_short(route)], _count(client, route.table, conditions[_short(route)]))
        for route in routes()
        if _short(route) in conditions
    ]


def _require_settled(client: Any, route: Route) -> None:  # noqa: ANN401
    """An archive that starts adds what its last plan lacks: then also what would be deleted here."""
    ingest = Ingest(client, route)
    try:
        verdicts = {} if route.replacing else ingest.verify(list(ingest.last_plans(_PARTITIONS).values()))
    except UnsettledError as cause:
        raise StoreError(f"{cause}; nothing was deleted yet: delete again when less arrives") from cause
    for partition, verdict in verdicts.items():
        if isinstance(verdict, Incomplete | Expiring):
            missing = f"{verdict.missing} rows" if isinstance(verdict, Incomplete) else "perhaps rows"
            raise StoreError(
                f"{route.topic}/{partition}: {missing} of its last plan are missing; start the archive "
                "once, so that it adds them, stop it, and delete again. Nothing was changed"
            )


def _delete(client: Any, holding: _Holding) -> None:  # noqa: ANN401
    route, condition = holding.route, holding.condition
    rollup = rollups().get(_short(route))
    cells = by_minute(client, rollup, condition) if rollup else []
    PlanStore(client).write(_plans_without(client, holding) or [])
    client.command(f"ALTER TABLE {route.table} DELETE WHERE {condition} SETTINGS mutations_sync = 2")
    print(f"{_short(route)}: {holding.rows - _count(client, route.table, condition):,} rows deleted")
    if rollup:
        _make_again(client, rollup, cells)


def _plans_without(client: Any, holding: _Holding) -> list[Plan]:  # noqa: ANN401
    """The last plans, with as many rows as will be left, so that the next archive does not add the node's again."""
    changed = []
    for plan in Ingest(client, holding.route).last_plans(_PARTITIONS).values():
        left = f"{where([plan])} AND NOT ({holding.condition})"
        gone = _count(client, holding.route.table, f"{where([plan])} AND {holding.condition}") if plan.rows else 0
        if gone:
            # counted, not subtracted: it may have been subtracted before, when this was broken off. A table with one
            # row a key is written again unless its plan has no rows; these have arrived
            rows = 0 if holding.route.replacing else _count(client, holding.route.table, left)
            changed.append(replace(plan.again(), rows=rows))
    return changed


def _make_again(client: Any, rollup: Rollup, cells: list[Cells]) -> None:  # noqa: ANN401
    whole = whole_from(client, rollup.source)
    kept = sum(len(chunk.starts) for chunk in cells if chunk.day < whole)
    with Steps(rollup.table) as steps:
        for done, chunk in enumerate(cells):
            steps.at(done, len(cells), str(chunk.day))
            if chunk.day >= whole:
                _make_equal(client, rollup, chunk)
    names = f"{rollup.table}{f' and {rollup.coarser.table}' if rollup.coarser else ''}"
    print(f"{names}: {sum(len(chunk.starts) for chunk in cells) - kept:,} minutes made again without the node")
    if kept:
        print(f"{names}: {kept:,} minutes that arrived before {whole} keep its counts; they name no node")


def _make_equal(client: Any, rollup: Rollup, chunk: Cells) -> None:  # noqa: ANN401
    """Looks again until it is: an archive may insert meanwhile, most likely into the minute that there is now."""
    deadline = time.monotonic() + _WAIT_S
    while wrong := make_equal(client, rollup, chunk):
        if time.monotonic() > deadline:
            raise StoreError(f"{wrong}; run `fleetbeat store verify --repair` when less arrives")
        time.sleep(_PAUSE_S)


def _count(client: Any, table: str, condition: str) -> int:  # noqa: ANN401
    return int(client.query(f"SELECT count() FROM {table} WHERE {condition}").result_rows[0][0])  # noqa: S608


def _short(route: Route) -> str:
    return route.table.removeprefix(f"{DATABASE}.")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise AskedWronglyError("nobody can be asked here; expected --yes")
    # the engine has reads go on after a signal, so that Ctrl-C would not end this one
    signal.siginterrupt(signal.SIGINT, True)  # noqa: FBT003 - it takes no names
    print("Delete them for good? [yes/no] ", end="", flush=True)
    return sys.stdin.readline().strip() == "yes"
