"""Copies of an embedded store that no archive has open, and stores made of them, checked row by count and by offset."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streams.archive.blocks import routes
from streams.archive.ddl import DATABASE, HISTORY
from streams.archive.plans import TABLE as PLANS
from streams.store.places import DEFAULT_STORE, AskedWronglyError, Place, StoreError, in_use
from streams.store.steps import Steps

_LIST = "backup.json"
_FORMAT = 1
_UNFINISHED = ".unfinished"


def run_backup(place: Place, to: Path) -> int:
    """Copies the store to a new folder. Raises AskedWronglyError, StoreError."""
    if to.exists():
        raise AskedWronglyError(f"{to}: exists already; expected the name of a new folder")
    folder = place.folder
    if to.resolve().is_relative_to(folder.resolve()):
        raise AskedWronglyError(f"{to}: is in the store {folder}; expected a folder outside of it")
    with place.embedded() as client:
        listed = contents(client)
    # the engine has written all it had and is closed: now nobody may open it until it is copied
    with _held(folder):
        unfinished = to.with_name(to.name + _UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        copied = _copy(folder / "data", unfinished / "data", "backup")
        made = {"format": _FORMAT, "made_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "bytes": copied, **listed}
        try:
            (unfinished / _LIST).write_text(json.dumps(made, indent=1), encoding="utf-8")
            unfinished.rename(to)
        except OSError as cause:
            raise StoreError(f"backup: {cause.filename}: {cause.strerror}") from cause
    print(f"{to}: {sum(listed['rows'].values()):,} rows, {copied:,} bytes, schema {listed['schema']}")
    return 0


def run_restore(place: Place, source: Path) -> int:
    """Makes the store, looks whether it holds what the list says; 1 when not. Raises AskedWronglyError, StoreError."""
    listed = _read_list(source)
    folder = place.store or DEFAULT_STORE
    if (folder / "data").exists():
        raise AskedWronglyError(
            f"--store {folder}: holds a store already; expected another folder, or this one moved away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        copied = _copy(source / "data", folder / "data.unfinished", "restore")
        (folder / "data.unfinished").rename(folder / "data")
    wrong = [] if copied == listed["bytes"] else [f"found {copied:,} bytes in {source}; expected {listed['bytes']:,}"]
    with Place(folder, None).embedded() as client:
        wrong += unlike(listed, contents(client))
    for line in wrong:
        print(f"{folder}: {line}")
    if not wrong:
        print(f"{folder}: {sum(listed['rows'].values()):,} rows and all offsets as in {source}, of {listed['made_at']}")
        print("the archive goes on after:")
        for topic, offsets in listed["planned"].items():
            print(f"  {topic}: {' '.join(f'{partition}@{last}' for partition, last in offsets.items())}")
    return int(bool(wrong))


def _read_list(source: Path) -> dict[str, Any]:
    """Raises AskedWronglyError."""
    expected = "expected a folder made by `fleetbeat store backup`"
    try:
        listed = json.loads((source / _LIST).read_text(encoding="utf-8"))
    except OSError:
        unfinished = ", only one that was broken off" if source.name.endswith(_UNFINISHED) else ""
        raise AskedWronglyError(f"{source}: no backup there{unfinished}; {expected}") from None
    except ValueError as cause:
        raise AskedWronglyError(f"{source / _LIST}: {cause}; {expected}") from None
    if not isinstance(listed, dict) or not isinstance(listed.get("format"), int):
        raise AskedWronglyError(f"{source / _LIST}: not the list of a backup; {expected}")
    if listed["format"] != _FORMAT:
        raise AskedWronglyError(f"{source}: a backup of format {listed['format']}; expected {_FORMAT}")
    if missing := sorted({"bytes", "made_at", "schema", "rows", "offsets", "planned"} - listed.keys()):
        raise AskedWronglyError(f"{source / _LIST}: no {missing[0]!r} in it; {expected}")
    if not (source / "data").is_dir():
        raise AskedWronglyError(f"{source}: no folder `data` beside {_LIST}; {expected}")
    return listed


def contents(client: Any) -> dict[str, Any]:  # noqa: ANN401 - clickhouse-connect is not typed
    """What can be compared: rows a table, the highest offset a topic and partition, ends of the last plans, schema.

    A table that keeps one row a key is counted as FINAL, since merges change the rest at any time; they change rollups
    too, which `verify` compares.
    """
    tables = _rows(
        client,
        f"SELECT name, engine FROM system.tables WHERE database = '{DATABASE}' "  # noqa: S608 - our own names
        "AND engine IN ('MergeTree', 'ReplacingMergeTree') ORDER BY name",
    )
    rows = {}
    for name, engine in tables:
        final = " FINAL" if engine.startswith("Replacing") else ""
        rows[name] = int(_rows(client, f"SELECT count() FROM {DATABASE}.{name}{final}")[0][0])  # noqa: S608
    offsets = {
        route.topic: {
            str(partition): last
            for partition, last in _rows(
                client,
                f"SELECT kafka_partition, max(kafka_offset) FROM {route.table} GROUP BY 1 ORDER BY 1",  # noqa: S608
            )
        }
        for route in routes()
    }
    planned: dict[str, dict[str, int]] = {}
    ends = f"SELECT topic, partition, max(last_offset) FROM {PLANS} GROUP BY ALL ORDER BY ALL"  # noqa: S608
    for topic, partition, last in _rows(client, ends):
        planned.setdefault(topic, {})[str(partition)] = last
    schema = int(_rows(client, f"SELECT max(number) FROM {HISTORY}")[0][0])  # noqa: S608
    return {"schema": schema, "rows": rows, "offsets": offsets, "planned": planned}


def unlike(listed: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """How a store differs from the list of its backup."""
    for what in ("rows", "offsets", "planned"):
        for name in sorted({*listed[what], *found[what]}):
            expected, there = listed[what].get(name), found[what].get(name)
            if expected != there:
                yield f"{what} of {name}: found {there}; expected {expected}"
    if listed["schema"] != found["schema"]:
        yield f"schema: found {found['schema']}; expected {listed['schema']}"


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The store's lock, without its engine."""
    with (folder / "owner").open("a+", encoding="utf-8") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(in_use(folder)) from None
        yield


def _copy(source: Path, to: Path, what: str) -> int:
    """Every file, with its links as links; returns the bytes copied."""
    shutil.rmtree(to, ignore_errors=True)
    sizes = [path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    done = 0
    with Steps(what) as steps:

        def copy(one: str, other: str) -> str:
            nonlocal done
            try:
                shutil.copy2(one, other)
            except OSError as cause:  # else all the others would be tried, and each one told
                raise StoreError(f"{what}: {other}: {cause.strerror}") from cause
            done += Path(one).stat().st_size
            steps.at(done, sum(sizes), "bytes")
            return other

        try:
            shutil.copytree(source, to, symlinks=True, copy_function=copy)
        except OSError as cause:
            reason = str(cause) if cause.strerror is None else f"{cause.filename}: {cause.strerror}"
            raise StoreError(f"{what} of {source}: {reason[:500]}") from cause
    return done


def _rows(client: Any, query: str) -> list[Any]:  # noqa: ANN401
    return list(client.query(query).result_rows)
