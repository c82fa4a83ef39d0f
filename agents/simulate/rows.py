"""What the simulated fleet says, as fixed-width rows: the shape shared by drawing, encoding and the ledger."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

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
BOOT = np.dtype([("boot_ts", "<i8"), ("node", "<u4"), ("boot_id", "S16")])
NODE = np.dtype([("node_id", "S16"), ("zone", "<u4")])


@dataclass(frozen=True, slots=True)
class Series:
    """The names that one series of probe results has in common."""

    service: str
    endpoint: str
    region: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events to be sent now, and the boots that they are the first to name."""

    heartbeats: Rows
    results: Rows
    boots: Rows

    @property
    def events(self) -> int:
        """Records to send."""
        return len(self.heartbeats) + len(self.results)
