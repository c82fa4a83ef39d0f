"""The ledger: on disk before anything is sent, readable after a kill, and clear about what was acknowledged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.simulate.ledger import Ledger, LedgerError, LedgerWriter, Manifest, read_ledger
from agents.simulate.rows import BOOT, COUNT, HEARTBEAT, NODE, REQUEST, RESULT, Chunk, Counted, Rows, Series

MANIFEST = Manifest(
    seed=7,
    start_ms=1_800_000_000_000,
    zones=(("eu", "eua"), ("us", "usa")),
    series=(Series("checkout", "/pay", "eu", "http"), Series("checkout", "/pay", "us", "http")),
    heartbeat_interval_ms=10_000,
    script={"services": []},
    counted=(Series("checkout", "/pay", "eu", "requests"),),
)
NODES = np.array([(b"node-0", 0), (b"node-1", 1)], NODE)


def counted(first_seq: int, *totals: int) -> Counted:
    rows = np.zeros(len(totals), COUNT)
    rows["seq"], rows["total"] = first_seq + np.arange(len(totals)), totals
    requests = np.zeros(sum(totals), REQUEST)
    requests["latency_us"] = 1_000 * first_seq + np.arange(sum(totals))
    return Counted.of(rows, requests)


def chunk(first_seq: int, heartbeats: int, results: int, boots: int = 0) -> Chunk:
    def rows(dtype: np.dtype[np.void], count: int) -> Rows:
        out = np.zeros(count, dtype)
        if "seq" in (dtype.names or ()):
            out["seq"] = first_seq + np.arange(count)
        return out

    return Chunk(rows(HEARTBEAT, heartbeats), rows(RESULT, results), rows(BOOT, boots))


def seqs(ledger: Ledger) -> tuple[list[int], list[int]]:
    return ledger.heartbeats["seq"].tolist(), ledger.results["seq"].tolist()


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    first, second = chunk(0, 2, 3, boots=2), chunk(10, 1, 0)
    with LedgerWriter(tmp_path / "new" / "ledger", MANIFEST, NODES) as writer:
        writer.acknowledge(writer.write(first))
        writer.acknowledge(writer.write(second))
        writer.finish({"events": 6})
    ledger = read_ledger(tmp_path / "new" / "ledger")
    assert ledger.manifest == MANIFEST
    assert ledger.nodes.tobytes() == NODES.tobytes()
    assert ledger.series == MANIFEST.series
    assert seqs(ledger) == ([0, 1, 10], [0, 1, 2])
    assert ledger.results.tobytes() == first.results.tobytes()
    assert ledger.boots.tobytes() == first.boots.tobytes()
    assert ledger.heartbeats_acknowledged.tolist() == [True] * 3
    assert ledger.results_acknowledged.tolist() == [True] * 3
    assert ledger.finished
    assert json.loads((tmp_path / "new" / "ledger" / "end.json").read_text()) == {"events": 6}


def test_a_chunk_is_on_disk_when_write_returns_and_acknowledged_only_when_told(tmp_path: Path) -> None:
    with LedgerWriter(tmp_path, MANIFEST, NODES) as writer:
        assert seqs(read_ledger(tmp_path)) == ([], [])
        numbers = [writer.write(chunk(100 * place, 1, 2)) for place in range(3)]
        writer.acknowledge(numbers[1])
        ledger = read_ledger(tmp_path)
    assert seqs(ledger) == ([0, 100, 200], [0, 1, 100, 101, 200, 201])
    assert ledger.heartbeats_acknowledged.tolist() == [False, True, False]
    assert ledger.results_acknowledged.tolist() == [False, False, True, True, False, False]
    assert not ledger.finished


@pytest.mark.parametrize("name", ["heartbeats", "results", "boots", "chunks", "acknowledged"])
def test_a_part_of_a_row_that_a_killed_writer_left_is_ignored(tmp_path: Path, name: str) -> None:
    with LedgerWriter(tmp_path, MANIFEST, NODES) as writer:
        writer.acknowledge(writer.write(chunk(0, 1, 1, boots=1)))
    before = read_ledger(tmp_path)
    with (tmp_path / f"{name}.rows").open("ab") as file:
        file.write(b"\1\0\0")
    after = read_ledger(tmp_path)
    assert seqs(after) == seqs(before) == ([0], [0])
    assert after.results_acknowledged.tolist() == [True]


def test_rows_of_a_chunk_that_was_never_complete_are_ignored(tmp_path: Path) -> None:
    with LedgerWriter(tmp_path, MANIFEST, NODES) as writer:
        writer.write(chunk(0, 1, 1))
    with (tmp_path / "results.rows").open("ab") as file:
        file.write(chunk(5, 0, 2).results.tobytes())
    assert seqs(read_ledger(tmp_path)) == ([0], [0])


def test_each_count_comes_back_with_its_requests(tmp_path: Path) -> None:
    none = chunk(0, 0, 0)
    with LedgerWriter(tmp_path, MANIFEST, NODES) as writer:
        writer.acknowledge(writer.write(replace(none, counted=counted(1, 2, 0))))
        writer.write(replace(none, counted=counted(5, 3)))
    ledger = read_ledger(tmp_path)
    assert ledger.counts["seq"].tolist() == [1, 2, 5]
    assert ledger.counts["first"].tolist() == [0, 2, 2]
    assert ledger.requests["latency_us"].tolist() == [1_000, 1_001, 5_000, 5_001, 5_002]
    assert ledger.counts_acknowledged.tolist() == [True, True, False]


def test_a_ledger_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(LedgerError, match="not empty; expected a new folder"):
        LedgerWriter(tmp_path, MANIFEST, NODES)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [(None, "no ledger"), ("{", "no ledger"), ('{"format": 99}', "ledger format 99; expected 3")],
)
def test_a_folder_that_is_no_ledger_is_refused(tmp_path: Path, manifest: str | None, problem: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(LedgerError, match=problem):
        read_ledger(tmp_path)
