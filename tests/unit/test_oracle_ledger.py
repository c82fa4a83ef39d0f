"""The oracle reads, by its own means, what the simulated fleet writes."""

from pathlib import Path

import numpy as np
import pytest

from agents.simulate.ledger import LedgerWriter, Manifest
from agents.simulate.rows import (
    BOOT,
    COUNT,
    GOODBYE,
    HEARTBEAT,
    NODE,
    OK,
    REQUEST,
    RESULT,
    TIMEOUT,
    Chunk,
    Counted,
    Series,
)
from infra.oracle.ledger import LedgerUnreadableError, read_beats, read_ledger

COUNTED = (Series("checkout", "/pay", "eu-1", "requests"), Series("login", "/", "us-1", "requests"))
SERIES = (Series("checkout", "/pay", "eu-1", "http"), Series("resolver", "internal", "us-1", "dns"))


def write(folder: Path, *, result_seqs: tuple[int, int] = (7, 8), finish: bool = True) -> None:
    boots = np.array([(1, 1, b"0123456789abcdef"), (2, 0, b"fedcba9876543210")], BOOT)
    heartbeats = np.zeros(1, HEARTBEAT)
    heartbeats[["ts_ms", "node", "boot", "seq", "heartbeat_seq", "state"]] = [(1_000, 1, 0, 6, 3, GOODBYE)]
    results = np.zeros(2, RESULT)
    results[["ts_ms", "node", "boot", "seq"]] = [(1_001, 1, 0, result_seqs[0]), (1_002, 1, 0, result_seqs[1])]
    results[["series", "latency_us", "outcome", "success"]] = [(1, 300, OK, True), (0, 4_000_000_000, TIMEOUT, False)]
    counts = np.zeros(2, COUNT)
    counts[["ts_ms", "node", "boot", "seq", "series"]] = [(1_000, 1, 0, 9, 1), (2_000, 0, 1, 0, 0)]
    counts[["window_ms", "total", "measured"]] = [(1_000, 2, True), (500, 1, False)]
    counted = Counted.of(counts, np.array([(70, True), (4_000_000_000, False), (80, True)], REQUEST))
    nodes = np.array([(b"node-a", 0), (b"node-b", 1)], NODE)
    manifest = Manifest(11, 1_000, (("eu-1", "eu-1a"), ("eu-1", "eu-1b")), SERIES, 5_000, {}, COUNTED)
    with LedgerWriter(folder, manifest, nodes) as writer:
        writer.acknowledge(writer.write(Chunk(heartbeats, results, boots, counted)))
        if finish:
            writer.finish({})


def test_reads_ids_and_results(tmp_path: Path) -> None:
    write(tmp_path)
    ledger = read_ledger(tmp_path)
    assert ledger.heartbeat_ids == {b"node-b\t0123456789abcdef\t6"}
    assert ledger.result_ids == {b"node-b\t0123456789abcdef\t7", b"node-b\t0123456789abcdef\t8"}
    assert ledger.count_ids == {b"node-b\t0123456789abcdef\t9", b"node-a\tfedcba9876543210\t0"}
    assert (ledger.events, ledger.seed) == (5, 11)
    results = ledger.results
    assert results.ts.tolist() == [1_001, 1_002]
    assert results.latency_us.tolist() == [300, 4_000_000_000]
    assert results.success.tolist() == [True, False]
    for column, value in (("service", "checkout"), ("endpoint", "/pay"), ("region", "eu-1"), ("kind", "http")):
        assert results.name(column).equal(value).tolist() == [False, True]


def test_reads_every_single_request_at_the_last_millisecond_of_its_window(tmp_path: Path) -> None:
    write(tmp_path)
    requests = read_ledger(tmp_path).requests
    assert requests.ts.tolist() == [1_999, 1_999, 2_499]
    assert requests.latency_us.tolist() == [70, 4_000_000_000, 0]
    assert requests.success.tolist() == [True, False, True]
    assert requests.measured is not None
    assert requests.measured.tolist() == [True, True, False]
    assert requests.name("service").equal("login").tolist() == [True, True, False]
    assert requests.name("kind").equal("requests").all()


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
    with pytest.raises(LedgerUnreadableError, match="5 rows with 4 ids"):
        read_ledger(tmp_path)


def test_no_ledger_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreadableError, match="no ledger"):
        read_ledger(tmp_path)
