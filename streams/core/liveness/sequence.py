"""Heartbeats of many nodes against what was known of each: which are news, what was lost, which nodes are back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.core.liveness.columns import NONE
from streams.core.liveness.states import GOODBYE, HEARTBEAT, NEW_BOOT, NEW_NODE, late_after_ms

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]

MAX_GAP = (1 << 31) - 1  # counted as lost at once: a forged number must not overflow a sum


@dataclass(frozen=True, slots=True)
class News:
    """What heartbeats change. `nodes` index the groups with news, all arrays up to `restarts` are by those.

    `newest` and `returned` are rows: the last news of the node, and the last one that found it not up (NONE: none did).
    """

    nodes: Longs
    newest: Longs
    returned: Longs
    heartbeats: Longs
    lost: Longs
    restarts: Longs
    reasons: npt.NDArray[np.int8]  # by row
    accepted: Mask  # by row: whether it is news


def news(beats: Columns, begins: Longs, known: Columns) -> News:
    """Compare heartbeats, sorted by node and then in log order, with what was known before.

    `begins`: the first row of each node; `known`: a row for each node, with `boot_ts` NONE for a new one.
    """
    boot, seq = beats["boot_ts"], beats["seq"]
    before = {name: _previous(beats[name], begins, known[name]) for name in ("boot_ts", "seq")}
    accepted = _newer(boot, seq, before["boot_ts"], before["seq"])
    if not accepted.all():
        accepted = _newer_than_all(boot, seq, begins, known)
    rows = np.flatnonzero(accepted)
    groups = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(boot))))[rows]
    heads = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1]))[: len(rows)])
    nodes = groups[heads]
    fresh = {name: column[rows] for name, column in beats.items()}
    before = {name: _previous(fresh[name], heads, known[name][nodes]) for name in known}

    unknown = before["boot_ts"] == NONE
    booted = fresh["boot_ts"] > before["boot_ts"]
    back = booted | (before["reported"] == GOODBYE)
    back |= fresh["last_seen_ms"] - before["last_seen_ms"] >= late_after_ms(before["interval_ms"])
    reasons = np.full(len(boot), HEARTBEAT, np.int8)
    reasons[rows] = np.where(unknown, NEW_NODE, np.where(booted, NEW_BOOT, HEARTBEAT))
    sizes = np.diff(np.append(heads, len(rows)))
    return News(
        nodes=nodes,
        newest=rows[heads + sizes - 1],
        returned=_reduce(np.maximum, np.where(back, rows, NONE), heads),
        heartbeats=sizes,
        lost=_reduce(np.add, _gaps(fresh["heartbeat_seq"], before["heartbeat_seq"], booted, unknown), heads),
        restarts=_reduce(np.add, (booted & ~unknown).astype(np.int64), heads),
        reasons=reasons,
        accepted=accepted,
    )


def _gaps(number: Longs, previous: Longs, booted: Mask, unknown: Mask) -> Longs:
    """Heartbeats missing before each; a new boot counts from 0, and of a new node nobody knows."""
    expected = np.where(booted, 0, previous + 1)
    countable = (number != NONE) & (booted | (previous != NONE)) & ~unknown
    gaps: Longs = np.where(countable, np.clip(number - expected, 0, MAX_GAP), 0)
    return gaps


def _newer(boot: Longs, seq: Longs, boot_before: Longs, seq_before: Longs) -> Mask:
    newer: Mask = (boot > boot_before) | ((boot == boot_before) & (seq > seq_before))
    return newer


def _newer_than_all(boot: Longs, seq: Longs, begins: Longs, known: Columns) -> Mask:
    """Which rows are newer than everything before them of their node: a running maximum of (boot, seq)."""
    heads = begins + np.arange(len(begins))
    boot, seq = np.insert(boot, begins, known["boot_ts"]), np.insert(seq, begins, known["seq"])
    order = np.lexsort((seq, boot))
    grows = _newer(boot[order[1:]], seq[order[1:]], boot[order[:-1]], seq[order[:-1]])
    rank = np.zeros(len(boot), np.int64)
    rank[order[1:]] = np.cumsum(grows)
    is_head = np.zeros(len(boot), np.int64)
    is_head[heads] = 1
    rank += np.cumsum(is_head) * len(boot)  # a later node's ranks are all greater
    highest = np.maximum.accumulate(rank)
    newer = np.concatenate(([False], rank[1:] > highest[:-1]))
    return np.delete(newer, heads)


def _previous(values: npt.NDArray[Any], heads: Longs, known: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The value before each row of its node; `known` before the first."""
    before = np.empty_like(values)
    before[1:] = values[:-1]
    before[heads] = known
    return before


def _reduce(by: np.ufunc, values: Longs, heads: Longs) -> Longs:
    reduced: Longs = by.reduceat(values, heads) if len(heads) else np.zeros(0, np.int64)
    return reduced
