"""The oracle reads, by its own means, what the simulated fleet writes."""

from pathlib import Path

import numpy as np
import pytest

from agents.simulate.ledger import LedgerWriter, Manifest
from agents.simulate.rows import BOOT, GOODBYE, HEARTBEAT, NODE, OK, RESULT, TIMEOUT, Chunk, Series
from infra.oracle.ledger import LedgerUnreadableError, read_beats, read_ledger

SERIES = (Series("checkout", "/pay", "eu-1", "http"), Series("resolver", "internal", "us-1", "dns"))


def write(folder: Path, *, result_seqs: tuple[int, int] = (7, 8), finish: bool = True) -> None:
    boots = np.array([(1, 1, b"0123456789abcdef"), (2, 0, b"fedcba9876543210")], BOOT)
    heartbeats = np.zeros(1, HEARTBEAT)
    heartbeats[["ts_ms", "node", "boot", "seq", "heartbeat_seq", "state"]] = [(1_000, 1, 0, 6, 3, GOODBYE)]
    results = np.zeros(2, RESULT)
    results[["ts_ms", "node", "boot", "seq"]] = [(1_001, 1, 0, result_seqs[0]), (1_002, 1, 0, result_seqs[1])]
    results[["series", "latency_us", "outcome", "success"]] = [(1, 300, OK, True), (0, 4_000_000_000, TIMEOUT, False)]
    nodes = np.array([(b"node-a", 0), (b"node-b", 1)], NODE)
    manifest = Manifest(11, 1_000, (("eu-1", "eu-1a"), ("eu-1", "eu-1b")), SERIES, 5_000, {})
    with LedgerWriter(folder, manifest, nodes) as writer:
        writer.acknowledge(writer.write(Chunk(heartbeats, results, boots)))
        if finish:
            writer.finish({})


def test_reads_ids_and_results(tmp_path: Path) -> None:
    write(tmp_path)
    ledger = read_ledger(tmp_path)
    assert ledger.heartbeat_ids == {b"node-b\t0123456789abcdef\t6"}
    assert ledger.result_ids == {b"node-b\t0123456789abcdef\t7", b"node-b\t0123456789abcdef\t8"}
    assert (ledger.events, ledger.seed) == (3, 11)
    results = ledger.results
    assert results.ts.tolist() == [1_001, 1_002]
    assert results.latency_us.tolist() == [300, 4_000_000_000]
    assert results.success.tolist() == [True, False]
    for column, value in (("service", "checkout"), ("endpoint", "/pay"), ("region", "eu-1"), ("kind", "http")):
        assert results.name(column).equal(value).tolist() == [False, True]


def test_reads_heartbeats_with_their_nodes_and_zones(tmp_path: Path) -> None:
    write(tmp_path)
    beats = read_beats(tmp_path)
    assert (beats.node.tolist(), beats.boot.tolist(), beats.number.tolist()) == ([1], [0], [3])
    assert beats.goodbye.tolist() == [True]
    assert beats.ids == [b"node-b\t0123456789abcdef\t6"]
    assert (beats.node_ids, beats.interval_ms) == (("node-a", "node-b"), 5_000)
    assert beats.zones == (("eu-1", "eu-1a"), ("eu-1", "eu-1b"))


def test_a_ledger_cut_short_is_refused(tmp_path: Path) -> None:
    write(tmp_path, finish=False)
    with pytest.raises(LedgerUnreadableError, match=r"no end\.json"):
        read_ledger(tmp_path)


def test_an_id_used_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, result_seqs=(7, 7))
    with pytest.raises(LedgerUnreadableError, match="3 rows with 2 ids"):
        read_ledger(tmp_path)


def test_no_ledger_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreadableError, match="no ledger"):
        read_ledger(tmp_path)
