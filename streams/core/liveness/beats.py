"""Heartbeats of a batch as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.liveness.columns import NEWEST, NONE, TEXTS
from streams.core.liveness.states import REPORTED

Longs = npt.NDArray[np.int64]

_MAX_COUNT = (1 << 31) - 1
_PERMILLE = ("cpu_permille", "memory_permille", "disk_permille")
# What a reader of heartbeats must bring.
BEAT_COLUMNS = (
    *("node_id", *TEXTS, "ts", "boot_ts", "seq", "heartbeat_seq", "interval_ms", "state"),
    *("health", *_PERMILLE, "spooled", "dropped"),
)
_NUMBERS = (
    *("offset", "append_ms", "ts", "boot_ts", "seq", "interval_ms"),
    pl.col("heartbeat_seq").fill_null(NONE),
    pl.col("state").cast(pl.Enum(REPORTED)).to_physical().alias("reported"),
    pl.col("health").clip(0, 100).fill_null(NONE),
    pl.col(*_PERMILLE).clip(0, 1_000).fill_null(NONE),
    pl.col("spooled", "dropped").clip(0, _MAX_COUNT),
)


@dataclass(frozen=True, slots=True)
class Beats:
    """Heartbeats in log order, each offset once.

    `numbers`: NEWEST, and `offset`; `last_seen_ms`, the frontier at the record: no node is seen before one that came
    earlier, though a broker's clock is set back; `before_ms`, the frontier before it.
    """

    texts: pl.DataFrame
    numbers: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.texts)

    def slice(self, begin: int, end: int) -> "Beats":
        """Rows from `begin` to before `end`."""
        return Beats(self.texts[begin:end], {name: column[begin:end] for name, column in self.numbers.items()})


def read_beats(frame: pl.DataFrame, applied: int, frontier_ms: int) -> Beats:
    """Rows behind offset `applied`. `frame`: BEAT_COLUMNS, offset and append_ms; repeats and overlaps are allowed."""
    offsets = frame["offset"].to_numpy()
    if len(offsets) and (offsets[0] <= applied or (offsets[1:] <= offsets[:-1]).any()):
        frame = frame.filter(pl.col("offset") > applied).unique("offset", keep="first").sort("offset")
    rows = frame.select(_NUMBERS)
    numbers = {name: rows[name].to_numpy().astype(NEWEST.get(name, np.int64), copy=False) for name in rows.columns}
    at = np.maximum(np.maximum.accumulate(numbers.pop("append_ms")), frontier_ms)
    numbers["last_seen_ms"] = at
    numbers["before_ms"] = np.concatenate(([frontier_ms], at[:-1]))[: len(at)]
    return Beats(frame[["node_id", *TEXTS]], numbers)
