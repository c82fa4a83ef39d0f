"""Where the tables are: a folder that nobody has open, a server, or the SQL address of a running archive."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streams.archive.ddl import DATABASE
from streams.sql import library

DEFAULT_STORE = Path(".fleetbeat/store")
DEFAULT_URL = "http://127.0.0.1:8123"
_ENV = "FLEETBEAT_CLICKHOUSE"
_PATHS = ("", DATABASE)
_ERRNO = re.compile(r"\[Errno -?\d+\] [^\"')]+")
_UNKNOWN = re.compile(r"\bUNKNOWN_(TABLE|IDENTIFIER)\b")
"""What ClickHouse says where a table or a column that this fleetbeat reads is not there."""


class StoreError(RuntimeError):
    """The store refuses, or is not as expected."""


class AskedWronglyError(ValueError):
    """The arguments cannot be meant like that."""


@dataclass(frozen=True, slots=True)
class Place:
    """As the command line names it; `url` only reads."""

    store: Path | None
    clickhouse: str | None
    url: str | None = None

    @property
    def folder(self) -> Path:
        """Of the embedded store. Raises AskedWronglyError when there is none."""
        folder = self.store or DEFAULT_STORE
        if not (folder / "data").is_dir():
            raise AskedWronglyError(
                f"--store {folder}: no embedded store there; expected the folder of `fleetbeat archive`"
            )
        return folder

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """A clickhouse-connect client. Raises AskedWronglyError, StoreError."""
        given = [name for name in ("store", "clickhouse", "url") if getattr(self, name) is not None]
        if len(given) > 1:
            raise AskedWronglyError(f"--{' beside --'.join(given)}: expected one of them")
        server = self.clickhouse or (os.environ.get(_ENV) if not given else None)
        if server or self.url:
            with _asking(server or self.url or "") as client:
                yield client
            return
        with self.embedded() as client:
            yield client

    @contextmanager
    def embedded(self) -> Iterator[Any]:
        """A client of the folder, which nobody else can have meanwhile. Raises AskedWronglyError, StoreError."""
        from streams.archive.embedded import EmbeddedStore, StoreInUseError  # noqa: PLC0415 - 100 MB for this alone

        folder = self.folder
        try:
            store = EmbeddedStore(folder)
        except StoreInUseError:
            raise StoreError(in_use(folder)) from None
        except OSError as cause:
            raise StoreError(str(cause)) from cause
        except ValueError as cause:
            raise AskedWronglyError(f"--{cause}") from None  # of its path
        with store, _refusals(str(folder)):
            client = store.client()
            try:
                yield client
            finally:
                client.close()


def in_use(folder: Path) -> str:
    """What to do about a store that an archive has."""
    pid = (folder / "owner").read_text(encoding="utf-8").strip() or "unknown"
    return (
        f"store {folder}: the archive with pid {pid} has this folder; stop it first. To read only, ask it: "
        f"usage, verify and export take --url {DEFAULT_URL}, its SQL address"
    )


def read_time(option: str, text: str) -> datetime:
    """A time as of ISO 8601 (UTC unless it says otherwise), an age such as -15m, or now. Raises AskedWronglyError."""
    try:
        at = library.read_time(text, datetime.now(UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise AskedWronglyError(
            f"{option} {text}: expected a time such as 2026-03-02T10:00:00Z, an age such as -15m, or now"
        ) from None
    return max(at, datetime.fromtimestamp(0, UTC))  # nothing is older, and ClickHouse knows no time that is


def read_range(since: str, until: str) -> tuple[datetime, datetime]:
    """--from and --to. Raises AskedWronglyError."""
    begin, end = read_time("--from", since), read_time("--to", until)
    if begin >= end:
        raise AskedWronglyError(f"--from {since} --to {until}: expected a time, and a later one")
    return begin, end


def literal(text: str) -> str:
    """A string as SQL has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _asking(url: str) -> Iterator[Any]:
    """A server, or an archive's SQL address, which speaks as one."""
    parts = urlsplit(url)
    try:
        port = parts.port or 8123
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/") not in _PATHS:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise AskedWronglyError(f"{shown}: expected http(s)://USER:PASSWORD@HOST:PORT")
    import clickhouse_connect  # noqa: PLC0415 - after an embedded store is open, if one is

    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # its words come as a StoreError
    with _refusals(f"{parts.hostname}:{port}"):
        client = clickhouse_connect.get_client(
            dsn=f"{parts.scheme}://{parts.netloc}/", autogenerate_session_id=False, send_receive_timeout=3_600
        )
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """What ClickHouse says, in a sentence of our own."""
    from clickhouse_connect.driver.exceptions import ClickHouseError  # noqa: PLC0415 - as above

    try:
        yield
    except ClickHouseError as cause:
        said = str(cause)
        if unreached := _ERRNO.search(said):  # of half a page of the driver's
            said = f"no answer: {unreached[0]}; expected a ClickHouse server, or the SQL address of a running archive"
        elif _UNKNOWN.search(said):
            said = f"the tables are not those of this fleetbeat, see `fleetbeat store migrate`: {said}"
        raise StoreError(f"{where}: {said[:500]}") from cause
