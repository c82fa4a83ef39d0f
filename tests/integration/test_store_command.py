"""`fleetbeat store` on an embedded store: what it says, what it changes, and what it refuses."""

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import fleetbeat
from schemas.codec import encode
from schemas.records import DeadLetter, Heartbeat, ProbeResult, RequestCount
from streams.archive import ddl, retention, rollups
from streams.archive.blocks import Chunk, Shaper, routes
from streams.archive.embedded import EmbeddedStore
from streams.archive.ingest import Ingest
from streams.archive.plans import Plan, PlanStore
from streams.store import nodes
from streams.store.export import pieces

NOW = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
RESULTS, BEATS, COUNTS, STATES, _, LETTERS = routes()
NODES = ["n-1", "n-2", "n'; --"]
Ask = Callable[..., "Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One command: its exit status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three nodes over two days, closed."""
    folder = tmp_path_factory.mktemp("made") / "store"
    with EmbeddedStore(folder, memory_cap_bytes=1 << 30) as store:
        client = store.client()
        ddl.apply(client)
        for day, received_at in enumerate([NOW - DAY_MS, NOW - 60_000]):
            fill(client, received_at, first=100 * day)
        client.close()
    return folder


def fill(client: Any, at: int, first: int) -> None:  # noqa: ANN401
    def chunk(*records: Any) -> Chunk:  # noqa: ANN401
        offsets = range(first, first + len(records))
        keys = [str(getattr(record, "node_id", getattr(record, "node", ""))).encode() for record in records]
        return Chunk(2, offsets, [at] * len(records), keys, [encode(record) for record in records])

    results = [
        ProbeResult(node, at - 10 * n, "b", n, "p", "http", "shop", "/", "eu", n % 5 > 0, 1_000 + n)
        for n in range(10)
        for node in NODES
    ]
    beats = [Heartbeat(node, at, "b", at, 0, 10_000, "UP", "eu", "a", "1") for node in NODES]
    counts = [RequestCount(node, at - 1_000, 1_000, "b", 0, "shop", "/", "eu", 6, 5, 0, 0, ()) for node in NODES]
    for route, records in ((RESULTS, results), (BEATS, beats), (COUNTS, counts)):
        Ingest(client, route).store(Shaper(route).shape([chunk(*records)]))
    letter = DeadLetter("r", "d", "heartbeats", 0, first, at, "archive", NODES[2].encode(), b"\xff\x00", 2)
    Ingest(client, LETTERS).store(Shaper(LETTERS).shape([Chunk(0, [first], [at], [None], [encode(letter)])]))


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], made: Path) -> Callable[..., Asked]:
    def run(*arguments: str, store: Path | None = made) -> Asked:
        status = fleetbeat.main(["store", *arguments, *(["--store", str(store)] if store else [])])
        said = capsys.readouterr()
        return Asked(status, said.out, said.err)

    return run


def rows(folder: Path, *queries: str) -> list[list[tuple[Any, ...]]]:
    with EmbeddedStore(folder) as store:
        client = store.client()
        try:
            return [[tuple(row) for row in client.query(query).result_rows] for query in queries]
        finally:
            client.close()


def test_usage_says_what_each_table_takes(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(ask("usage", "--json").out)
    results = next(table for table in found["tables"] if table["table"] == "probe_results")
    assert results["rows"] == 60
    assert results["bytes_a_row"] == round(results["bytes"] / 60, 2)
    assert results["kept_days"] == 14
    assert 12.9 < results["days_left"] <= 13.0
    assert results["oldest"] == f"{datetime.fromtimestamp((NOW - DAY_MS) / 1000, UTC):%Y-%m-%dT%H:%MZ}"
    assert found["disk"]["free_bytes"] > 0
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, and a narrow one
    monkeypatch.setenv("COLUMNS", "80")
    plain = ask("usage").out
    assert "archive_migrations" in plain
    assert "disk: " in plain


def test_rows_that_go_by_months_have_so_many_days_left(ask: Ask, made: Path, tmp_path: Path) -> None:
    folder, today = copy(made, tmp_path), datetime.now(UTC).date()
    month = (today.replace(day=1) - timedelta(days=1)).replace(day=1)  # all of it is over
    last = month.replace(day=28)
    kept = (today - month).days - 1  # its first day is, its last one is not
    with EmbeddedStore(folder) as store:
        client = store.client()
        retention.apply(client, retention.ages([f"probe_1m={kept}d"]))
        client.command("SYSTEM STOP MERGES")
        client.command(
            "INSERT INTO telemetry.probe_1m (minute, received_on, total) "  # noqa: S608 - our own dates
            f"SELECT toDateTime(toDate(at)), toDate(at), 1 FROM (SELECT arrayJoin(['{month}', '{last}']) AS at)"
        )
        client.close()
    found = {table["table"]: table for table in json.loads(ask("usage", "--json", store=folder).out)["tables"]}
    assert found["probe_1m"]["oldest"] == f"{month}T00:00Z"
    left = datetime.combine(last, datetime.min.time(), UTC) + timedelta(days=kept) - datetime.now(UTC)
    assert found["probe_1m"]["days_left"] == pytest.approx(left / timedelta(days=1), abs=0.02)


def test_verify_names_minute_and_series_and_repairs_them(ask: Ask, made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path)
    with EmbeddedStore(folder) as store:
        client = store.client()
        client.command(f"DELETE FROM telemetry.probe_1m WHERE minute > fromUnixTimestamp({NOW // 1000 - 3_600})")  # noqa: S608
        client.close()
    wrong = ask("verify", "--from", "-3d", store=folder)
    assert wrong.status == 1
    minute = f"{datetime.fromtimestamp((NOW - 60_000) / 1000, UTC):%Y-%m-%dT%H:%MZ}"
    assert f"probe_1m {minute} arrived" in wrong.out
    assert "service=shop endpoint=/ region=eu probe=p kind=http: made of its rows total=30 good=24" in wrong.out
    assert "found nothing" in wrong.out
    assert ask("verify", "--from", "-3d", "--repair", store=folder).status == 0
    right = ask("verify", "--from", "-3d", store=folder)
    assert right.status == 0, right
    assert "probe_1m and probe_1h" in right.out


def copy(made: Path, tmp_path: Path) -> Path:
    """The store in another folder."""
    return Path(shutil.copytree(made, tmp_path / "store", symlinks=True))


def test_a_deleted_node_is_gone_and_rollups_are_made_without_it(ask: Ask, made: Path, tmp_path: Path) -> None:
    node, folder = NODES[2], copy(made, tmp_path)
    assert ask("delete-node", node, store=folder).status == 2, "nobody can be asked"
    deleted = ask("delete-node", node, "--yes", store=folder)
    assert deleted.status == 0, deleted
    assert "probe_results: 20 rows deleted" in deleted.out
    assert "dead_letters: 2 rows deleted" in deleted.out
    assert "probe_1m and probe_1h: 2 minutes made again" in deleted.out
    assert ask("verify", "--from", "-3d", store=folder).status == 0
    (left,), (minutes,), nodes = rows(
        folder,
        "SELECT count() FROM telemetry.probe_results",
        "SELECT sum(total) FROM telemetry.probe_1m",
        "SELECT DISTINCT node_id FROM telemetry.heartbeats ORDER BY 1",
    )
    assert (left, minutes) == ((40,), (40,))
    assert [name for (name,) in nodes] == sorted({*NODES} - {node})
    # an archive that starts on it finds its last plans as they should be
    with EmbeddedStore(folder) as store:
        client = store.client()
        for route in (RESULTS, BEATS, COUNTS):
            ingest = Ingest(client, route)
            verdicts = ingest.verify(list(ingest.last_plans({2}).values()))
            assert {type(verdict).__name__ for verdict in verdicts.values()} == {"Complete"}
        client.close()


def test_a_deletion_that_was_broken_off_is_repeated(
    ask: Ask, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, folder, write = NODES[0], copy(made, tmp_path), PlanStore.write

    def broken_off(self: PlanStore, plans: Sequence[Plan]) -> None:
        write(self, plans)
        raise SystemExit(130)

    for _ in range(4):
        with monkeypatch.context() as patched:
            patched.setattr(PlanStore, "write", broken_off)
            with pytest.raises(SystemExit):
                ask("delete-node", node, "--yes", store=folder)
    assert ask("delete-node", node, "--yes", store=folder).status == 0
    plans = "SELECT argMax(rows, revision) FROM telemetry.archive_plans WHERE topic = 'probe-results'"
    (planned,), (left,) = rows(folder, plans, "SELECT count() FROM telemetry.probe_results")
    assert (planned, left) == ((20,), (40,)), "half of what is left is of the last plan"


def test_minutes_that_somebody_inserts_into_meanwhile_are_made_again_until_they_are_right(
    ask: Ask, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rebuild, made_again = copy(made, tmp_path), rollups.rebuild, list[str]()

    def disturbed(client: Any, rollup: rollups.Rollup, cells: rollups.Cells) -> None:  # noqa: ANN401
        rebuild(client, rollup, cells)
        if (
            rollup.table == "probe_1m" and rollup.table not in made_again
        ):  # as a view does for an insert that began before
            client.command("INSERT INTO telemetry.probe_1m SELECT * FROM telemetry.probe_1m")
        made_again.append(rollup.table)

    monkeypatch.setattr(rollups, "rebuild", disturbed)
    monkeypatch.setattr(nodes, "rebuild", disturbed, raising=False)
    assert ask("delete-node", NODES[0], "--yes", store=folder).status == 0
    assert made_again.count("probe_1m") > 2, "two days, and one of them again"
    assert ask("verify", "--from", "-3d", store=folder).status == 0


def test_ctrl_c_ends_a_question(made: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "fleetbeat", "store", "delete-node", NODES[0], "--store", str(made)]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as asking:
        os.close(slave)
        said = b""
        while b"[yes/no]" not in said:
            said += os.read(master, 4_096)
        try:
            asking.send_signal(signal.SIGINT)
            assert asking.wait(30) == 130
        finally:
            asking.kill()
            os.close(master)


def test_a_restore_is_what_was_saved_or_says_so(ask: Ask, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    assert ask("backup", str(saved)).status == 0
    restored = ask("restore", str(saved), store=tmp_path / "good")
    assert restored.status == 0, restored
    assert "probe-results: 2@129" in restored.out
    listed = json.loads((saved / "backup.json").read_text())
    listed["rows"]["heartbeats"] += 1
    listed["offsets"]["probe-results"]["2"] += 1
    (saved / "backup.json").write_text(json.dumps(listed))
    restored = ask("restore", str(saved), store=tmp_path / "store")
    assert restored.status == 1
    assert "rows of heartbeats: found 6; expected 7" in restored.out
    assert "offsets of probe-results: found {'2': 129}; expected {'2': 130}" in restored.out
    again = ask("restore", str(saved), store=tmp_path / "store")
    assert again.status == 2
    assert "holds a store already" in again.err
    assert ask("backup", str(saved)).status == 2
    assert ask("restore", str(tmp_path), store=tmp_path / "other").status == 2


def test_a_backup_that_is_not_whole_is_refused_in_one_sentence(ask: Ask, tmp_path: Path) -> None:
    saved, into = tmp_path / "saved", tmp_path / "store"
    assert ask("backup", str(saved)).status == 0
    (saved / "data" / "more").write_text("x")
    restored = ask("restore", str(saved), store=tmp_path / "other")
    assert restored.status == 1, "it is not what was saved"
    assert f"bytes in {saved}; expected " in restored.out
    listed = json.loads((saved / "backup.json").read_text())
    shutil.rmtree(saved / "data")
    for text, said in (
        (json.dumps(listed), "no folder `data` beside backup.json"),
        (json.dumps({**listed, "format": 2}), "a backup of format 2; expected 1"),
        (
            json.dumps({"format": 1, **{name: 0 for name in listed if name not in {"rows", "format"}}}),
            "no 'rows' in it",
        ),
        ("[]", "backup.json: not the list of a backup"),
        ("{", "backup.json: Expecting property name"),
    ):
        (saved / "backup.json").write_text(text)
        refused = ask("restore", str(saved), store=into)
        assert (refused.status, refused.err.count("\n")) == (2, 1)
        assert said in refused.err
        assert not into.exists()
    saved.rename(tmp_path / "x.unfinished")
    (tmp_path / "x.unfinished" / "backup.json").unlink()
    assert "only one that was broken off" in ask("restore", str(tmp_path / "x.unfinished"), store=into).err


def test_a_full_disk_is_one_sentence_and_ends_the_copy(
    ask: Ask, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(one: str, other: str) -> None:
        tried.append(one)
        raise OSError(errno.ENOSPC, "No space left on device", other)

    monkeypatch.setattr("streams.store.backup.shutil.copy2", full)
    refused = ask("backup", str(tmp_path / "saved"))
    assert (refused.status, len(tried)) == (1, 1)
    assert re.fullmatch(r"fleetbeat: backup: \S+: No space left on device\n", refused.err)
    assert not (tmp_path / "saved").exists()
    inside = ask("backup", str(made / "data" / "saved"))
    assert inside.status == 2
    assert "expected a folder outside of it" in inside.err


@pytest.mark.parametrize(("table", "expected"), [("probe_results", 60), ("probe_1m", 2), ("dead_letters", 2)])
def test_export_writes_a_range_as_parquet(ask: Ask, tmp_path: Path, table: str, expected: int) -> None:
    file = tmp_path / "out.parquet"
    assert ask("export", table, str(file), "--from", "-3d").status == 0
    found = pq.read_table(file)
    assert found.num_rows == expected
    if table == "probe_results":
        assert sorted(set(found["node_id"].to_pylist())) == sorted(NODES)
        assert found["ts"].to_pylist() == sorted(found["ts"].to_pylist())
        assert sum(found["success"].to_pylist()) == 48
    elif table == "probe_1m":
        assert found["minute"].to_pylist() == [
            datetime.fromtimestamp(at // 60_000 * 60, UTC) for at in (NOW - DAY_MS, NOW - 60_000)
        ]
    else:
        assert set(found["value"].to_pylist()) == {b"\xff\x00"}, "nobody said that it is text"
        assert set(found["topic"].to_pylist()) == {"heartbeats"}
    assert ask("export", table, str(file), "--from", "-3d").status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_pieces_hold_every_second_once() -> None:
    counts = [(0, 10), (60, 150_000), (120, 100_000), (180, 450_000), (240, 5)]
    found = list(pieces(counts, 300))
    assert [(piece.first_s, piece.end_s) for piece in found] == [
        (0, 120),
        (120, 180),
        (180, 200),
        (200, 220),
        (220, 240),
        (240, 300),
    ]
    assert all(piece.rows <= 200_000 for piece in found)


def test_what_cannot_be_is_refused(ask: Ask, tmp_path: Path, made: Path) -> None:
    assert "no embedded store there" in ask("usage", store=tmp_path / "none").err
    assert "expected one of dead_letters" in ask("export", "nothing", str(tmp_path / "f"), "--from", "-1h").err
    assert "--from yesterday: expected a time" in ask("verify", "--from", "yesterday").err
    assert "--repair beside --url" in ask("verify", "--repair", "--url", "http://127.0.0.1:1", store=None).err
    assert "expected one of them" in ask("usage", "--url", "http://127.0.0.1:1").err
    for arguments, status, said in (
        (["verify", "--from", "-999999999d"], 2, "--from -999999999d: expected a time"),
        (["verify", "--from", "0001-01-01T00:00+05:00"], 2, "--from 0001-01-01T00:00+05:00: expected a time"),
        (["usage", "--url", "http://me:secret@127.0.0.1:port"], 2, "http://127.0.0.1:port: expected http"),
        (
            ["usage", "--url", "http://127.0.0.1:1"],
            1,
            "127.0.0.1:1: no answer: [Errno 111] Connection refused; expected",
        ),
    ):
        refused = ask(*arguments, store=None)
        assert (refused.status, refused.err.count("\n")) == (status, 1)
        assert said in refused.err
    (tmp_path / "a?b" / "data").mkdir(parents=True)
    assert ask("usage", store=tmp_path / "a?b").status == 2
    (tmp_path / "empty" / "data").mkdir(parents=True)
    assert "see `fleetbeat store migrate`" in ask("verify", store=tmp_path / "empty").err
    with EmbeddedStore(made):
        for arguments in (["usage"], ["delete-node", "n", "--yes"], ["backup", str(tmp_path / "b")]):
            refused = ask(*arguments)
            assert refused.status == 1
            assert "has this folder; stop it first" in refused.err
            assert "--url http://127.0.0.1:8123" in refused.err


@pytest.mark.parametrize("command", ["migrate", "usage", "verify", "delete-node", "backup", "restore", "export"])
def test_every_help_has_an_example(ask: Ask, command: str) -> None:
    said = ask(command, "--help", store=None)
    assert said.status == 0
    assert f"fleetbeat store {command}" in said.out.partition("Example:")[2]
