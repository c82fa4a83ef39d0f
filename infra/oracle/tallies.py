"""The counts of every node and of the whole fleet, against the ledger: heartbeats, restarts, and nothing lost."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

import numpy as np

from infra.oracle.judge import Verdict
from infra.oracle.ledger import Beats
from infra.oracle.sources import Counts, NodeView, Sql, Views, quoted


def judge_tallies(verdict: Verdict, beats: Beats, views: Views, sql: Sql, guest: str | None) -> None:
    """The heartbeats of `guest`, a node that is no part of the fleet, are those of SQL. Raises UnavailableError."""
    shown = {node.node_id: node for node in views.nodes()}
    stranger = shown.pop(guest, None) if guest is not None else None
    compare_nodes(verdict, exact(beats), shown)
    counted = [node.counts for node in shown.values()]
    if guest is not None:
        where = f"WHERE node_id = {quoted(guest)}"
        stored = sql.number(f"SELECT count() FROM telemetry.heartbeats {where}")  # noqa: S608 - quoted
        found = 0 if stranger is None else stranger.counts.heartbeats
        if found != stored:
            verdict.differ("nodes", f"{guest}: heartbeats is {found}; telemetry.heartbeats has {stored}")
    if stranger is not None:
        counted.append(stranger.counts)
    compare_totals(verdict, counted, views.totals())


def exact(beats: Beats) -> dict[str, Counts]:
    """What the ledger has of each node; lost is what is missing between its numbers within each boot."""
    nodes = len(beats.node_ids)
    boots = int(beats.boot.max(initial=-1)) + 1
    node_of, last, count = (
        np.zeros(boots, np.int64),
        np.full(boots, -1, np.int64),
        np.bincount(beats.boot, minlength=boots),
    )
    node_of[beats.boot] = beats.node
    np.maximum.at(last, beats.boot, beats.number)
    heard = count > 0
    lost = np.bincount(node_of[heard], (last + 1 - count)[heard], nodes).astype(np.int64)
    heartbeats = np.bincount(beats.node, minlength=nodes)
    restarts = np.maximum(np.bincount(node_of[heard], minlength=nodes) - 1, 0)
    columns = (column.tolist() for column in (heartbeats, lost, restarts))
    return {name: Counts(*row) for name, *row in zip(beats.node_ids, *columns, strict=True) if row[0]}


def compare_nodes(verdict: Verdict, expected: Mapping[str, Counts], shown: Mapping[str, NodeView]) -> None:
    """Every node that sent a heartbeat is known, no other, and its counts are equal."""
    verdict.nodes_compared = len(expected)
    for node_id in sorted(expected.keys() | shown.keys()):
        ours, theirs = expected.get(node_id), shown.get(node_id)
        if ours is None or theirs is None:
            verdict.differ("nodes", f"{node_id}: {'unknown to the views' if theirs is None else 'not in the ledger'}")
            continue
        for field in fields(Counts):
            wanted, found = getattr(ours, field.name), getattr(theirs.counts, field.name)
            if wanted != found:
                verdict.differ("nodes", f"{node_id}: {field.name} is {found}; the ledger has {wanted}")


def compare_totals(verdict: Verdict, counted: Iterable[Counts], totals: Counts) -> None:
    """The fleet's sums are the sums of its nodes."""
    nodes = list(counted)
    for field in fields(Counts):
        wanted, found = sum(getattr(node, field.name) for node in nodes), getattr(totals, field.name)
        if wanted != found:
            verdict.differ("nodes", f"/fleet: {field.name} is {found}; its nodes have {wanted}")
