"""What the simulated fleet says, as fixed-width rows: the shape shared by drawing, encoding and the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Outcomes = npt.NDArray[np.uint8]

STATES = ("UP", "DRAINING", "GOODBYE")
UP = STATES.index("UP")
GOODBYE = STATES.index("GOODBYE")

# How a probe ended. What REFUSED and BROKEN put into a record depends on the kind of the probe: see bodies.py.
OK, TIMEOUT, REFUSED, BROKEN = range(4)
OUTCOMES = ("ok", "timeout", "refused", "broken")

# `node`, `boot`, `zone` and `series` are indices into the ledger's rows and names; times are event time, ms UTC.
HEARTBEAT = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("node", "<u4"),
        ("boot", "<u4"),
        ("seq", "<u4"),
        ("heartbeat_seq", "<u4"),
        ("spooled", "<u4"),
        ("cpu_permille", "<u2"),
        ("memory_permille", "<u2"),
        ("disk_permille", "<u2"),
        ("health", "u1"),
        ("state", "u1"),
    ]
)
RESULT = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("node", "<u4"),
        ("boot", "<u4"),
        ("seq", "<u4"),
        ("series", "<u4"),
        ("latency_us", "<u4"),
        ("outcome", "u1"),
        ("success", "?"),
        ("spare", "<u2"),  # named, since numpy does not keep unnamed bytes at zero
    ]
)
# What a process of a service counted from `ts_ms` on for `window_ms`: the `total` rows of REQUEST from `first` on. One
# that is not `measured` says no latencies.
COUNT = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("first", "<u8"),
        ("node", "<u4"),
        ("boot", "<u4"),
        ("seq", "<u4"),
        ("series", "<u4"),
        ("total", "<u4"),
        ("window_ms", "<u4"),
        ("measured", "?"),
    ]
)
REQUEST = np.dtype([("latency_us", "<u4"), ("success", "?")])
BOOT = np.dtype([("boot_ts", "<i8"), ("node", "<u4"), ("boot_id", "S16")])
NODE = np.dtype([("node_id", "S16"), ("zone", "<u4")])


@dataclass(frozen=True, slots=True)
class Series:
    """The names that one series has in common, of probe results or of counts."""

    service: str
    endpoint: str
    region: str
    kind: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of COUNT and the requests that they stand for, which are in the order of the rows."""

    rows: Rows
    requests: Rows

    @classmethod
    def of(cls, rows: Rows, requests: Rows) -> "Counted":
        """With the place of its requests in each row."""
        ends = np.cumsum(rows["total"], dtype=np.uint64)
        rows["first"] = ends - rows["total"]
        return cls(rows, requests)

    @classmethod
    def joined(cls, parts: Sequence["Counted"]) -> "Counted":
        """All of them, one after the other."""
        rows = np.concatenate([NOTHING_COUNTED.rows, *(part.rows for part in parts)])
        return cls.of(rows, np.concatenate([NOTHING_COUNTED.requests, *(part.requests for part in parts)]))

    def where(self, wanted: Flags) -> "Counted":
        """Only these rows."""
        return Counted.of(self.rows[wanted], self.requests[np.repeat(wanted, self.rows["total"])])


NOTHING_COUNTED = Counted(np.empty(0, COUNT), np.empty(0, REQUEST))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events to be sent now, and the boots that they are the first to name."""

    heartbeats: Rows
    results: Rows
    boots: Rows
    counted: Counted = NOTHING_COUNTED

    @property
    def events(self) -> int:
        """Records to send."""
        return len(self.heartbeats) + len(self.results) + len(self.counted.rows)
