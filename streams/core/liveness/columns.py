"""What is known of every node, columnar: a slot for each, pages of slots, and the form in which rows travel."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.liveness.states import UNTOLD, UP
from streams.core.liveness.texts import Names, Places, TextIndex, Texts

Longs = npt.NDArray[np.int64]

PAGE_NODES = 1_024
NONE = -1  # of a number that a heartbeat need not carry
NEVER_SILENT_MS = 1 << 62

# Of a node's newest heartbeat; `ts` is the node's clock.
NEWEST: dict[str, type[np.signedinteger[Any]]] = {
    "ts": np.int64,
    "boot_ts": np.int64,
    "seq": np.int64,
    "heartbeat_seq": np.int64,
    "interval_ms": np.int32,
    "reported": np.int8,
    "health": np.int16,
    "cpu_permille": np.int16,
    "memory_permille": np.int16,
    "disk_permille": np.int16,
    "spooled": np.int32,
    "dropped": np.int32,
}
# A node's row is a function of the log up to `last_offset`, but for what has been told of it.
NUMBERS: dict[str, type[np.signedinteger[Any]]] = {
    "first_offset": np.int64,
    "last_offset": np.int64,
    "first_seen_ms": np.int64,
    "last_seen_ms": np.int64,
    **NEWEST,
    "heartbeats": np.int64,
    "lost": np.int64,
    "restarts": np.int32,
    "up_since_ms": np.int64,
    "up_reason": np.int8,
    "told": np.int8,
    "told_since_ms": np.int64,
}
TEXTS = ["boot_id", "region", "zone", "agent_version"]
_MAX_VERSION = 64  # characters; the contract sets no limit
_FREE = {"last_seen_ms": NEVER_SILENT_MS, "told": UP}
PAGE_SCHEMA = pl.DataFrame(
    {name: pl.Series(dtype=pl.String) for name in ("node_id", *TEXTS)}
    | {name: np.zeros(0, dtype) for name, dtype in NUMBERS.items()}
).schema


class NodeColumns:
    """A row for each node, in slots that are used again when a node has left."""

    def __init__(self, seed: int) -> None:
        self.size = 0  # slots from here on have never been used
        self.used = np.zeros(0, np.bool_)
        self.numbers: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in NUMBERS.items()}
        self.place = np.zeros(0, np.int32)  # numbers of `places`
        self.version = np.zeros(0, np.int32)  # of `versions`
        self.places = Places(seed)
        self.versions = Names(seed)
        self.ids = TextIndex(seed)
        self.boot_ids = Texts()
        self._seed = seed
        self._looks = np.zeros(0, np.uint64)  # of boot id and names, to see quickly whether any has changed
        self._free = np.zeros(0, np.int64)

    @property
    def nodes(self) -> int:
        """How many there are."""
        return self.ids.count

    @property
    def pages(self) -> int:
        """Pages that have ever been used."""
        return -(-self.size // PAGE_NODES)

    def page_frames(self, pages: Longs) -> list[pl.DataFrame]:
        """Rows of the nodes in each of `pages` (ascending), as PAGE_SCHEMA."""
        slots = (pages[:, None] * PAGE_NODES + np.arange(PAGE_NODES)).ravel()
        slots = slots[slots < self.size]
        slots = slots[self.used[slots]]
        rows = self.frame(slots)
        ends = np.searchsorted(slots, (pages + 1) * PAGE_NODES).tolist()
        return [rows[begin:end] for begin, end in pairwise([0, *ends])]

    def slots(self) -> Longs:
        """Those in use."""
        return np.flatnonzero(self.used[: self.size])

    def view(self, name: str) -> npt.NDArray[Any]:
        """A number of all slots up to `size`, not a copy. Free slots look like silent nodes that are up: _FREE."""
        return self.numbers[name][: self.size]

    def allocate(self, ids: pl.Series) -> Longs:
        """Slots for new nodes: those that have left first. Their numbers are NONE or 0 until somebody fills them."""
        free, self._free = self._free[: len(ids)], self._free[len(ids) :]
        more = len(ids) - len(free)
        slots = np.concatenate([free, np.arange(self.size, self.size + more)])
        self.size += more
        self._grow()
        self.used[slots] = True
        self.ids.add(slots, ids)
        for name, column in self.numbers.items():
            column[slots] = 0 if name in {"heartbeats", "lost", "restarts"} else NONE
        self.numbers["told"][slots] = UNTOLD
        return slots

    def remove(self, slots: Longs) -> pl.Series:
        """Forget nodes; returns their ids."""
        gone = self.ids.texts.at(slots)
        self.used[slots] = False
        for name, column in self.numbers.items():
            column[slots] = _FREE.get(name, 0)
        self.place[slots], self._looks[slots] = 0, 0
        self.ids.keep(self.slots())
        self._free = np.flatnonzero(~self.used[: self.size])
        return gone

    def describe(self, slots: Longs, texts: pl.DataFrame, rows: Longs) -> None:
        """Set the boot ids and names of nodes from some rows of `texts`; rarely does one change."""
        texts = texts[TEXTS]
        looks = texts.hash_rows(self._seed).to_numpy()[rows]
        changed = self._looks[slots] != looks
        if not changed.any():
            return
        slots, texts = slots[changed], texts[rows[changed]]
        self._looks[slots] = looks[changed]
        self.boot_ids.put(slots, texts["boot_id"])
        self.place[slots] = self.places.codes(texts["region"], texts["zone"])
        self.version[slots] = self.versions.codes(texts["agent_version"].str.head(_MAX_VERSION))
        # A node may lie about its zone each time anew.
        for names, codes in ((self.places, self.place), (self.versions, self.version)):
            if len(names) > 2 * self.nodes + PAGE_NODES:
                kept = np.unique(np.append(codes[: self.size], 0))
                codes[: self.size] = names.only(kept)[codes[: self.size]]

    def frame(self, slots: Longs) -> pl.DataFrame:
        """Rows of some nodes as PAGE_SCHEMA."""
        return pl.DataFrame(
            [
                self.ids.texts.at(slots).rename("node_id"),
                self.boot_ids.at(slots).rename("boot_id"),
                *self.places.at(self.place[slots]),
                self.versions.at(self.version[slots]).rename("agent_version"),
                *(pl.Series(name, column[slots]) for name, column in self.numbers.items()),
            ]
        )

    def load(self, rows: pl.DataFrame) -> None:
        """Take rows (PAGE_SCHEMA) of nodes that are not there yet, each once."""
        slots = self.allocate(rows["node_id"])
        self.describe(slots, rows, np.arange(len(slots)))
        for name, column in self.numbers.items():
            column[slots] = rows[name].to_numpy()

    def _grow(self) -> None:
        had = len(self.used)
        if self.size <= had:
            return
        capacity = -(-max(self.size, had * 9 // 8) // PAGE_NODES) * PAGE_NODES
        self.used = _longer(self.used, capacity)
        self.numbers = {name: _longer(column, capacity) for name, column in self.numbers.items()}
        self.place, self.version = _longer(self.place, capacity), _longer(self.version, capacity)
        self._looks = _longer(self._looks, capacity)
        self.ids.grow(capacity)
        self.boot_ids.grow(capacity)


def pages_of(slots: Longs) -> Longs:
    """The page of each slot."""
    return slots // PAGE_NODES


def _longer(column: npt.NDArray[Any], capacity: int) -> npt.NDArray[Any]:
    return np.concatenate([column, np.zeros(capacity - len(column), column.dtype)])
