"""When each node was silent: its heartbeats of the ledger at the moments at which the broker took them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.oracle.ledger import Beats

STILL_SILENT = 1 << 62


@dataclass(frozen=True, slots=True)
class Silence:
    """From one heartbeat of a node to its next, or to STILL_SILENT; append times in ms UTC.

    `goodbye`: the node had said that it leaves.
    """

    node_id: str
    zone: tuple[str, str]
    from_ms: int
    to_ms: int
    goodbye: bool


def append_times(beats: Beats, stored: Iterable[bytes]) -> npt.NDArray[np.int64] | None:
    """When the broker took each heartbeat, ms UTC; None when one of them is not among `stored`.

    Lines are `node_id TAB boot_id TAB seq TAB append time`.
    """
    times: dict[bytes, int] = {}
    for line in stored:
        one, _, time_ms = line.rpartition(b"\t")
        times[one] = int(time_ms)
    if any(one not in times for one in beats.ids):
        return None
    return np.array([times[one] for one in beats.ids], np.int64)


def silences(beats: Beats, append_ms: npt.NDArray[np.int64]) -> list[Silence]:
    """Pauses of two intervals and more, and what follows the last heartbeat of each node; by their beginning."""
    order = np.lexsort((beats.number, beats.boot, beats.node))
    node, time_ms, goodbye = beats.node[order], append_ms[order], beats.goodbye[order]
    goes_on = np.append(node[1:] == node[:-1], [False] * bool(node.size))
    until_ms = np.where(goes_on, np.append(time_ms[1:], [0] * bool(node.size)), STILL_SILENT)
    long = until_ms - time_ms >= 2 * beats.interval_ms
    columns = (column[long].tolist() for column in (node, time_ms, until_ms, goodbye))
    found = [
        Silence(beats.node_ids[number], beats.zones[number], begin, end, leaves)
        for number, begin, end, leaves in zip(*columns, strict=True)
    ]
    return sorted(found, key=lambda silence: silence.from_ms)
