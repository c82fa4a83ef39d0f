"""The ledger: every event on disk before it is sent, and which of them the broker acknowledged.

A folder with `manifest.json` (names, seed, start, script), rows without a header in `nodes.rows`, `boots.rows`,
`heartbeats.rows`, `results.rows`, `counts.rows` and, for each of these as many as its total, `requests.rows` (the
dtypes of rows.py), `chunks.rows` (up to where the rows go that are about to be sent) and `acknowledged.rows` (numbers
of chunks that the broker has in full). What the writer is killed over was written but perhaps not sent: the ledger
holds at least all that Kafka holds. `end.json` exists only after a clean end, when both hold the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from agents.simulate.rows import (
    BOOT,
    COUNT,
    HEARTBEAT,
    NODE,
    OUTCOMES,
    REQUEST,
    RESULT,
    STATES,
    Chunk,
    Flags,
    Rows,
    Series,
)

FORMAT = 3
_CHUNK = np.dtype([(f"{name}_end", "<u8") for name in ("heartbeats", "results", "counts", "requests")])
_NUMBER = np.dtype("<u4")


class LedgerError(ValueError):
    """A folder cannot be written as a ledger, or is none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the rows' indices stand for, (region, zone) for a zone; what the run was made of: `script` is for people."""

    seed: int
    start_ms: int
    zones: Sequence[tuple[str, str]]
    series: Sequence[Series]
    heartbeat_interval_ms: int
    script: Mapping[str, Any]
    counted: Sequence[Series] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger read back: structured arrays as in rows.py, in the order of sending.

    An event's id is (node, boot, seq): `nodes["node_id"][row["node"]]`, `boots["boot_id"][row["boot"]]`, `row["seq"]`.
    `heartbeats_acknowledged`, `results_acknowledged` and `counts_acknowledged` say for each row whether the broker
    surely has it; the others it may have. `first` of a count is a place in `requests`. `finished` says that the run
    ended cleanly and every row was acknowledged.
    """

    manifest: Manifest
    nodes: Rows
    boots: Rows
    heartbeats: Rows
    results: Rows
    counts: Rows
    requests: Rows
    heartbeats_acknowledged: Flags
    results_acknowledged: Flags
    counts_acknowledged: Flags
    finished: bool

    @property
    def series(self) -> Sequence[Series]:
        """Series of probe results; `series` of a row is the index."""
        return self.manifest.series


class LedgerWriter:
    """Writes a ledger into a folder that is new or empty. Raises LedgerError when it is not."""

    def __init__(self, folder: Path, manifest: Manifest, nodes: Rows) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise LedgerError(f"{folder}: not empty; expected a new folder, a ledger is never written over")
        self._folder = folder
        (folder / "manifest.json").write_text(json.dumps(_manifest_document(manifest), indent=1), encoding="utf-8")
        (folder / "nodes.rows").write_bytes(nodes.tobytes())
        self._boots = _open(folder, "boots")
        self._heartbeats = _open(folder, "heartbeats")
        self._results = _open(folder, "results")
        self._counts = _open(folder, "counts")
        self._requests = _open(folder, "requests")
        self._chunks = _open(folder, "chunks")
        self._acknowledged = _open(folder, "acknowledged")
        self._ends = np.zeros(1, _CHUNK)
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        rows = (self._boots, self._heartbeats, self._results, self._counts, self._requests)
        for file in (*rows, self._chunks, self._acknowledged):
            file.close()

    def write(self, chunk: Chunk) -> int:
        """Hands the chunk to the operating system, so that it outlives this process; gives the chunk's number.

        Send nothing of the chunk before this returns.
        """
        self._boots.write(chunk.boots.tobytes())
        self._heartbeats.write(chunk.heartbeats.tobytes())
        self._results.write(chunk.results.tobytes())
        counts, requests = chunk.counted.rows.copy(), chunk.counted.requests
        counts["first"] += self._ends["requests_end"]
        self._requests.write(requests.tobytes())
        self._counts.write(counts.tobytes())
        self._ends["heartbeats_end"] += len(chunk.heartbeats)
        self._ends["results_end"] += len(chunk.results)
        self._ends["counts_end"] += len(counts)
        self._ends["requests_end"] += len(requests)
        self._chunks.write(self._ends.tobytes())
        self._next += 1
        return self._next - 1

    def acknowledge(self, number: int) -> None:
        """Notes that the broker has every event of that chunk."""
        self._acknowledged.write(np.array([number], _NUMBER).tobytes())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Notes a clean end; only for when every chunk was acknowledged."""
        (self._folder / "end.json").write_text(json.dumps(dict(summary)), encoding="utf-8")


def read_ledger(folder: Path) -> Ledger:
    """The ledger in that folder, also while it is being written or after its writer was killed. Raises LedgerError."""
    try:
        document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise LedgerError(f"{folder}: no ledger: {cause}") from cause
    if document.get("format") != FORMAT:
        raise LedgerError(f"{folder}: ledger format {document.get('format')!r}; expected {FORMAT}")
    # Before the rows: what is appended meanwhile then only makes the rows longer than asked for. The end comes first.
    finished = (folder / "end.json").exists()
    acknowledged = _read(folder, "acknowledged", _NUMBER)
    chunks = _read(folder, "chunks", _CHUNK)
    sure = np.zeros(len(chunks), np.bool_)
    sure[acknowledged[acknowledged < len(chunks)]] = True
    ends = {name: chunks[f"{name}_end"].astype(np.int64) for name in ("heartbeats", "results", "counts", "requests")}
    whole = {name: end[-1] if len(chunks) else 0 for name, end in ends.items()}
    return Ledger(
        manifest=_manifest(document),
        nodes=_read(folder, "nodes", NODE),
        boots=_read(folder, "boots", BOOT),
        heartbeats=_read(folder, "heartbeats", HEARTBEAT)[: whole["heartbeats"]],
        results=_read(folder, "results", RESULT)[: whole["results"]],
        counts=_read(folder, "counts", COUNT)[: whole["counts"]],
        requests=_read(folder, "requests", REQUEST)[: whole["requests"]],
        heartbeats_acknowledged=np.repeat(sure, np.diff(ends["heartbeats"], prepend=0)),
        results_acknowledged=np.repeat(sure, np.diff(ends["results"], prepend=0)),
        counts_acknowledged=np.repeat(sure, np.diff(ends["counts"], prepend=0)),
        finished=finished,
    )


def _open(folder: Path, name: str) -> BinaryIO:
    # Unbuffered: a write that returned is with the operating system.
    return (folder / f"{name}.rows").open("wb", buffering=0)


def _read(folder: Path, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Whole rows only: a writer that was killed may have left a part of one."""
    return np.fromfile(folder / f"{name}.rows", dtype)


def _manifest_document(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "seed": manifest.seed,
        "start_ms": manifest.start_ms,
        "heartbeat_interval_ms": manifest.heartbeat_interval_ms,
        "states": STATES,
        "outcomes": OUTCOMES,
        "script": manifest.script,
        "zones": list(manifest.zones),
        "series": [asdict(one) for one in manifest.series],
        "counted": [asdict(one) for one in manifest.counted],
    }


def _manifest(document: Mapping[str, Any]) -> Manifest:
    return Manifest(
        seed=document["seed"],
        start_ms=document["start_ms"],
        zones=tuple((region, zone) for region, zone in document["zones"]),
        series=tuple(Series(**one) for one in document["series"]),
        counted=tuple(Series(**one) for one in document["counted"]),
        heartbeat_interval_ms=document["heartbeat_interval_ms"],
        script=document["script"],
    )
