"""The ledger of a run, read by the oracle's own means: every record that the simulated fleet was about to send.

A folder with `manifest.json` and rows of fixed width in `nodes.rows`, `boots.rows`, `heartbeats.rows`, `results.rows`,
`counts.rows` and `requests.rows`, which has each single request that was counted; `end.json` is there only after a
clean end, when the broker has all of it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra import InfraError

FORMAT = 3
# `node`, `boot`, `zone` and `series` are indices into nodes.rows, boots.rows and the manifest's names; times are event
# time in ms UTC.
_EVENT = [("ts_ms", "<i8"), ("node", "<u4"), ("boot", "<u4"), ("seq", "<u4")]
_LOADS = [("cpu_permille", "<u2"), ("memory_permille", "<u2"), ("disk_permille", "<u2")]
HEARTBEAT = np.dtype(
    [*_EVENT, ("heartbeat_seq", "<u4"), ("spooled", "<u4"), *_LOADS, ("health", "u1"), ("state", "u1")]
)
RESULT = np.dtype(
    [*_EVENT, ("series", "<u4"), ("latency_us", "<u4"), ("outcome", "u1"), ("success", "?"), ("", "V2")],
)
# A process counted, from `ts_ms` on for `window_ms`, the `total` requests from row `first` of requests.rows on.
COUNT = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("first", "<u8"),
        *_EVENT[1:],
        ("series", "<u4"),
        ("total", "<u4"),
        ("window_ms", "<u4"),
        ("measured", "?"),
    ]
)
REQUEST = np.dtype([("latency_us", "<u4"), ("success", "?")])
BOOT = np.dtype([("boot_ts", "<i8"), ("node", "<u4"), ("boot_id", "S16")])
NODE = np.dtype([("node_id", "S16"), ("zone", "<u4")])


class LedgerUnreadableError(InfraError):
    """The folder holds no ledger of a run that ended cleanly."""


@dataclass(frozen=True, slots=True)
class Names:
    """A column of names, each row a code into `values`."""

    codes: npt.NDArray[np.integer]
    values: tuple[str, ...]

    def equal(self, value: str) -> npt.NDArray[np.bool_]:
        """True where the row has that name."""
        wanted = [code for code, name in enumerate(self.values) if name == value]
        return np.isin(self.codes, wanted)


@dataclass(frozen=True, slots=True)
class Results:
    """Probe results, or requests that were counted; every array has the shape (results,); `ts` is event time in ms UTC.

    `measured`: whether the latency is known; without it all are.
    """

    ts: npt.NDArray[np.int64]
    latency_us: npt.NDArray[np.int64]
    success: npt.NDArray[np.bool_]
    service: Names
    endpoint: Names
    region: Names
    kind: Names
    measured: npt.NDArray[np.bool_] | None = field(default=None, kw_only=True)

    def name(self, column: str) -> Names:
        """The column of that name. Raises KeyError."""
        return {"service": self.service, "endpoint": self.endpoint, "region": self.region, "kind": self.kind}[column]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that was sent: ids by table, and the results in detail; an id is `node_id TAB boot_id TAB seq` in UTF-8.

    `requests` are those that were counted, each at the last millisecond of its window.
    """

    heartbeat_ids: frozenset[bytes]
    result_ids: frozenset[bytes]
    count_ids: frozenset[bytes]
    results: Results
    requests: Results
    seed: int

    @property
    def events(self) -> int:
        """Records of all tables."""
        return len(self.heartbeat_ids) + len(self.result_ids) + len(self.count_ids)


@dataclass(frozen=True, slots=True)
class Beats:
    """The heartbeats, each array of shape (heartbeats,), in the order of sending; and the nodes that sent them.

    `node` is an index into `node_ids` and `zones`, which has the (region, zone) of each node. `boot` grows from one
    boot of a node to its next. `ids` are as in Ledger.
    """

    node: npt.NDArray[np.int64]
    boot: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    goodbye: npt.NDArray[np.bool_]
    ids: list[bytes]
    node_ids: tuple[str, ...]
    zones: tuple[tuple[str, str], ...]
    interval_ms: int


def read_ledger(folder: Path) -> Ledger:
    """The ledger of a run that ended. Raises LedgerUnreadableError."""
    manifest, files = _open(folder)
    heartbeats, results, counts = files.heartbeats, files.results, files.counts
    ledger = Ledger(
        heartbeat_ids=frozenset(files.ids(heartbeats)),
        result_ids=frozenset(files.ids(results)),
        count_ids=frozenset(files.ids(counts)),
        results=_results(results, manifest["series"]),
        requests=_requests(counts, files.requests, manifest["counted"]),
        seed=int(manifest["seed"]),
    )
    sent = len(heartbeats) + len(results) + len(counts)
    if ledger.events != sent:
        raise LedgerUnreadableError(f"{folder}: {sent} rows with {ledger.events} ids; expected each id once")
    return ledger


def read_beats(folder: Path) -> Beats:
    """The heartbeats of the same ledger. Raises LedgerUnreadableError."""
    manifest, files = _open(folder)
    heartbeats = files.heartbeats
    zones = [(region, zone) for region, zone in manifest["zones"]]
    return Beats(
        node=heartbeats["node"].astype(np.int64),
        boot=heartbeats["boot"].astype(np.int64),
        number=heartbeats["heartbeat_seq"].astype(np.int64),
        goodbye=heartbeats["state"] == manifest["states"].index("GOODBYE"),
        ids=files.ids(heartbeats),
        node_ids=tuple(name.decode() for name in files.nodes["node_id"].tolist()),
        zones=tuple(zones[zone] for zone in files.nodes["zone"].tolist()),
        interval_ms=int(manifest["heartbeat_interval_ms"]),
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """The rows of a ledger, of the dtypes above."""

    nodes: npt.NDArray[Any]
    boots: npt.NDArray[Any]
    heartbeats: npt.NDArray[Any]
    results: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    requests: npt.NDArray[Any]

    def ids(self, rows: npt.NDArray[Any]) -> list[bytes]:
        """`node_id TAB boot_id TAB seq` of each row."""
        nodes = self.nodes["node_id"].tolist()
        prefixes = [b"%s\t%s\t" % (nodes[boot["node"]], boot["boot_id"]) for boot in self.boots]
        pairs = zip(rows["boot"].tolist(), rows["seq"].tolist(), strict=True)
        return [b"%s%d" % (prefixes[boot], seq) for boot, seq in pairs]


def _open(folder: Path) -> tuple[dict[str, Any], _Files]:
    """Manifest and rows."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise LedgerUnreadableError(f"{folder}: no ledger: {cause}") from cause
    if manifest.get("format") != FORMAT:
        raise LedgerUnreadableError(f"{folder}: ledger format {manifest.get('format')!r}; expected {FORMAT}")
    if not (folder / "end.json").exists():
        raise LedgerUnreadableError(f"{folder}: no end.json; expected the ledger of a fleet that ended cleanly")
    kept = {
        "nodes": NODE,
        "boots": BOOT,
        "heartbeats": HEARTBEAT,
        "results": RESULT,
        "counts": COUNT,
        "requests": REQUEST,
    }
    return manifest, _Files(**{name: np.fromfile(folder / f"{name}.rows", dtype) for name, dtype in kept.items()})


def _results(rows: npt.NDArray[Any], series: list[dict[str, str]]) -> Results:
    return Results(
        ts=rows["ts_ms"].astype(np.int64),
        latency_us=rows["latency_us"].astype(np.int64),
        success=rows["success"].astype(np.bool_),
        **_named(rows["series"], series),
    )


def _requests(counts: npt.NDArray[Any], requests: npt.NDArray[Any], series: list[dict[str, str]]) -> Results:
    """Every single one of each count, in the order of the counts; what is not measured has no latency."""
    total = counts["total"].astype(np.int64)
    of = np.repeat(np.arange(len(counts)), total)
    within = np.arange(len(of)) - np.repeat(np.cumsum(total) - total, total)
    one, mine = counts[of], requests[counts["first"].astype(np.int64)[of] + within]
    return Results(
        ts=one["ts_ms"] + one["window_ms"] - 1,
        latency_us=np.where(one["measured"], mine["latency_us"].astype(np.int64), 0),
        success=mine["success"].astype(np.bool_),
        **_named(one["series"], series),
        measured=one["measured"].astype(np.bool_),
    )


def _named(codes: npt.NDArray[Any], series: list[dict[str, str]]) -> dict[str, Any]:
    columns = ("service", "endpoint", "region", "kind")
    return {column: Names(codes, tuple(one[column] for one in series)) for column in columns}
