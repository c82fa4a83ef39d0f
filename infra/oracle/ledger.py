"""The ledger of a run, read by the oracle's own means: every record that the simulated fleet was about to send.

A folder with `manifest.json` and rows of fixed width in `boots.rows`, `heartbeats.rows` and `results.rows`;
`end.json` is there only after a clean end, when the broker has all of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra import InfraError

FORMAT = 1
# `node`, `boot` and `series` are indices into the manifest's names and into boots.rows; times are event time in ms UTC.
_EVENT = [("ts_ms", "<i8"), ("node", "<u4"), ("boot", "<u4"), ("seq", "<u4")]
_LOADS = [("spooled", "<u4"), ("cpu_permille", "<u2"), ("memory_permille", "<u2"), ("disk_permille", "<u2")]
HEARTBEAT = np.dtype([*_EVENT, *_LOADS, ("health", "u1"), ("state", "u1")])
RESULT = np.dtype(
    [*_EVENT, ("series", "<u4"), ("latency_us", "<u4"), ("outcome", "u1"), ("success", "?"), ("", "V2")],
)
BOOT = np.dtype([("boot_ts", "<i8"), ("node", "<u4"), ("boot_id", "S16")])


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


def read_ledger(folder: Path) -> Ledger:
    """The ledger of a run that ended. Raises LedgerUnreadableError."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise LedgerUnreadableError(f"{folder}: no ledger: {cause}") from cause
    if manifest.get("format") != FORMAT:
        raise LedgerUnreadableError(f"{folder}: ledger format {manifest.get('format')!r}; expected {FORMAT}")
    if not (folder / "end.json").exists():
        raise LedgerUnreadableError(f"{folder}: no end.json; expected the ledger of a fleet that ended cleanly")
    boots = np.fromfile(folder / "boots.rows", BOOT)
    heartbeats = np.fromfile(folder / "heartbeats.rows", HEARTBEAT)
    results = np.fromfile(folder / "results.rows", RESULT)
    nodes = [str(node).encode() for node in manifest["nodes"]]
    ledger = Ledger(
        heartbeat_ids=_ids(heartbeats, boots, nodes),
        result_ids=_ids(results, boots, nodes),
        results=_results(results, manifest["series"]),
        seed=int(manifest["seed"]),
    )
    if ledger.events != len(heartbeats) + len(results):
        raise LedgerUnreadableError(
            f"{folder}: {len(heartbeats) + len(results)} rows with {ledger.events} ids; expected each id once"
        )
    return ledger


def _ids(rows: npt.NDArray[Any], boots: npt.NDArray[Any], nodes: list[bytes]) -> frozenset[bytes]:
    prefixes = [b"%s\t%s\t" % (nodes[boot["node"]], boot["boot_id"]) for boot in boots]
    pairs = zip(rows["boot"].tolist(), rows["seq"].tolist(), strict=True)
    return frozenset(b"%s%d" % (prefixes[boot], seq) for boot, seq in pairs)


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
