"""Which pages are written when, and from where a restart reads again."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from streams.core.liveness import columns
from streams.core.liveness.admission import Limits
from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.liveness.pages import BEGINNING, PageLog, Position
from streams.core.liveness.table import NodeTable
from tests.unit.liveness_world import START_MS, WEEK_MS, Beat, fold, rows_of

PLENTY = Limits(1_000, 1_000)


def log_of(pages: int) -> PageLog:
    log = PageLog()
    log.grow(pages)
    log.take(pages)
    return log


def touch(log: PageLog, *pages: int, first: int) -> None:
    """Records from offset `first` on, one for each page; the frontier before a record is its offset in seconds."""
    offsets = np.arange(first, first + len(pages))
    log.touch(np.array(pages), offsets, offsets * 1_000)


def test_the_longest_unwritten_pages_are_next() -> None:
    log = log_of(5)
    turns = []
    for turn in range(5):
        touch(log, 0, 1, 2, 3, 4, first=turn * 10)
        turns.append(log.take(2).tolist())
    assert turns == [[0, 1], [2, 3], [0, 4], [1, 2], [0, 3]]


def test_pages_that_have_not_changed_are_not_written() -> None:
    log = log_of(3)
    touch(log, 1, first=0)
    assert (log.take(9).tolist(), log.take(9).tolist()) == ([1], [])


def test_urgent_pages_are_written_whatever_the_limit() -> None:
    log = log_of(4)
    touch(log, 0, 1, 2, 3, first=0)
    log.mark(np.array([3, 2]), urgent=True)
    assert log.take(1).tolist() == [0, 2, 3]


def test_a_restart_reads_from_the_first_record_that_some_page_lacks() -> None:
    log = log_of(3)
    touch(log, 1, 0, 1, first=10)
    assert log.resume() == (10, 10_000)
    log.take(1)  # page 0
    assert log.resume() == (10, 10_000)
    touch(log, 0, 1, first=20)
    log.take(1)  # page 1
    assert log.resume() == (20, 20_000)
    log.take(3)
    assert log.resume() is None


def test_pages_that_only_announced_something_hold_nothing_back() -> None:
    log = log_of(2)
    log.mark(np.array([1]), urgent=False)
    assert log.resume() is None
    assert log.take(9).tolist() == [1]


def test_pages_are_settled_when_each_was_written_once() -> None:
    log = PageLog()
    log.grow(3)
    settled = []
    for _ in range(3):
        log.take(1)
        settled.append(log.settled())
    assert settled == [False, False, True]
    log.grow(4)
    assert not log.settled()


POSITION = Position(7, START_MS, 12, 29_383_333, 3, 4, 5)


def test_a_position_is_short_text_and_back() -> None:
    assert Position.parse(POSITION.text()) == POSITION
    assert Position.parse(BEGINNING.text()) == BEGINNING
    assert len(POSITION.text()) < 100


@pytest.mark.parametrize("text", ["", "1763000000000", "1 2 3", "1 2 3 4 5 6 x", "a commit by hand", "1 2 3 4 5 6 7 8"])
def test_what_others_leave_in_a_commit_is_no_position(text: str) -> None:
    assert Position.parse(text) is None


# Snapshots of tables -------------------------------------------------------------------------------------------------


@pytest.fixture
def table() -> NodeTable:
    """Seven nodes on pages of two, all written."""
    with mock.patch.object(columns, "PAGE_NODES", 2):
        table = NodeTable(PLENTY, seed=1)
        fold(table, [Beat(f"n{i}") for i in range(7)])
        table.snapshot(0)
        return table


def test_pages_hold_their_nodes_and_fit_together_again(table: NodeTable) -> None:
    with mock.patch.object(columns, "PAGE_NODES", 2):
        fold(table, [Beat(f"n{i}", START_MS + 1_000, seq=1, heartbeat_seq=1) for i in range(7)], 7)
        snapshot = table.snapshot(9)
    assert [(page.page, page.rows["node_id"].to_list()) for page in snapshot.pages] == [
        (0, ["n0", "n1"]),
        (1, ["n2", "n3"]),
        (2, ["n4", "n5"]),
        (3, ["n6"]),
    ]
    assert all(page.rows.schema == PAGE_SCHEMA for page in snapshot.pages)
    again = NodeTable(PLENTY, seed=2)
    again.restore([page.rows for page in snapshot.pages], snapshot.position)
    assert rows_of(again) == rows_of(table)
    assert (again.applied, again.frontier_ms) == (table.applied, table.frontier_ms)


def test_a_thirtieth_at_a_time_keeps_up_and_resumes_thirty_saves_back() -> None:
    with mock.patch.object(columns, "PAGE_NODES", 2):
        table = NodeTable(PLENTY, seed=1)
        nodes = [Beat(f"n{i}") for i in range(120)]
        fold(table, nodes)
        table.snapshot(0)
        for second in range(1, 70):
            beats = [replace(b, append_ms=START_MS + second * 1_000, seq=second, heartbeat_seq=second) for b in nodes]
            fold(table, beats, 120 * second)
            snapshot = table.snapshot(2)
            assert len(snapshot.pages) == 2
            assert snapshot.position.resume_offset >= 120 * (second - 29)


def test_a_page_without_nodes_is_handed_out_empty_once(table: NodeTable) -> None:
    with mock.patch.object(columns, "PAGE_NODES", 2):
        fold(table, [Beat("n0", START_MS + WEEK_MS, seq=1), Beat("n0", START_MS + 2 * WEEK_MS - 60_000, seq=2)], 7)
        pages = {page.page: page.rows.height for page in table.snapshot(9).pages}
        assert pages == {0: 1, 1: 0, 2: 0, 3: 0}
        assert table.snapshot(9).pages == ()


def test_a_commit_without_a_position_keeps_what_the_pages_know(table: NodeTable) -> None:
    """Offsets that were reset by a tool: what is read again changes nothing."""
    with mock.patch.object(columns, "PAGE_NODES", 2):
        fold(table, [Beat(f"n{i}", START_MS + 1_000, seq=1, heartbeat_seq=1) for i in range(7)], 7)
        pages = [page.rows for page in table.snapshot(9).pages]
    again = NodeTable(PLENTY, seed=2)
    again.restore(pages, None)
    fold(again, [Beat(f"n{i}", START_MS + 1_000, seq=1, heartbeat_seq=1) for i in range(7)], 7)
    assert rows_of(again) == rows_of(table)
    assert again.counts(START_MS).heartbeats == 14


def test_before_the_first_commit_pages_mean_nothing(table: NodeTable) -> None:
    with mock.patch.object(columns, "PAGE_NODES", 2):
        fold(table, [Beat("n0", seq=1, heartbeat_seq=1)], 7)
        pages = [page.rows for page in table.snapshot(9).pages]
    again = NodeTable(PLENTY, seed=2)
    again.restore(pages, BEGINNING)
    assert (again.nodes, again.applied) == (0, -1)
