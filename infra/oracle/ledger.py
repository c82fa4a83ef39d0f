"""The ledger of a run, read by the oracle's own means: every record that the simulated fleet was about to send.

A folder with `manifest.json` and rows of fixed width in `nodes.rows`, `boots.rows`, `heartbeats.rows` and
`results.rows`; `end.json` is there only after a clean end, when the broker has all of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra import InfraError

FORMAT = 2
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
    """Probe results; every array has the shape (results,); `ts` is event time in ms UTC."""

    ts: npt.NDArray[np.int64]
    latency_us: npt.NDArray[np.int64]
    success: npt.NDArray[np.bool_]
    service: Names
    endpoint: Names
    region: Names
    kind: Names

    def name(self, column: str) -> Names:
        """The column of that name. Raises KeyError."""
        return {"service": self.service, "endpoint": self.endpoint, "region": self.region, "kind": self.kind}[column]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that was sent: ids by table, and the results in detail; an id is `node_id TAB boot_id TAB seq` in UTF-8."""

    heartbeat_ids: frozenset[bytes]
    result_ids: frozenset[bytes]
    results: Results
    seed: int

    @property
    def events(self) -> int:
        """Records of both tables."""
        return len(self.heartbeat_ids) + len(self.result_ids)


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
    heartbeats, results = files.heartbeats, files.results
    ledger = Ledger(
        heartbeat_ids=frozenset(files.ids(heartbeats)),
        result_ids=frozenset(files.ids(results)),
        results=_results(results, manifest["series"]),
        seed=int(manifest["seed"]),
    )
    if ledger.events != len(heartbeats) + len(results):
        raise LedgerUnreadableError(
            f"{folder}: {len(heartbeats) + len(results)} rows with {ledger.events} ids; expected each id once"
        )
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
    nodes, boots, heartbeats, results = (
        np.fromfile(folder / f"{name}.rows", dtype)
        for name, dtype in (("nodes", NODE), ("boots", BOOT), ("heartbeats", HEARTBEAT), ("results", RESULT))
    )
    return manifest, _Files(nodes, boots, heartbeats, results)


def _results(rows: npt.NDArray[Any], series: list[dict[str, str]]) -> Results:
    def names(column: str) -> Names:
        return Names(rows["series"], tuple(one[column] for one in series))

    return Results(
        ts=rows["ts_ms"].astype(np.int64),
        latency_us=rows["latency_us"].astype(np.int64),
        success=rows["success"].astype(np.bool_),
        service=names("service"),
        endpoint=names("endpoint"),
        region=names("region"),
        kind=names("kind"),
    )
