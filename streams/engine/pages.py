"""State pages: how the objectives table survives its worker.

A page is one changelog record: key `family/part/owner epoch`, value a header and columnar rows. Of the same part the
page with the greatest applied offset counts, whoever wrote it and whenever: a stopped owner that wakes up writes old
pages. The epoch in the key keeps compaction from replacing a new owner's page by such an old one.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import faust
import polars as pl
from faust.types import EventT

from streams.core.rows import OPEN_SCHEMA, STEP_SCHEMA, Steps
from streams.core.series import SeriesIndex
from streams.core.slices import TIERS
from streams.core.table import NEVER, Chunk, ChunkKey, SloTable
from streams.engine.frames import FrameError, pack, unpack

FORMAT = 1
_LENGTH = struct.Struct(">I")
OPEN = "open"


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was read; `part` is `open` or `tier:chunk start`."""

    family: str
    part: str
    epoch: str
    applied: int
    header: dict[str, Any] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """Its changelog key."""
        return page_key(self.family, self.part, self.epoch)


def page_key(family: str, part: str, epoch: str) -> bytes:
    """The changelog key of a page."""
    return f"{family}/{part}/{epoch}".encode()


def chunk_part(key: ChunkKey) -> str:
    """The part name of a chunk's page."""
    return f"{key[0]}:{key[1]}"


def write_open(table: SloTable, topic_id: str, index: SeriesIndex) -> bytes:
    """The page of a table's open cells; it stands for the table: written after the chunks, read before them."""
    header = {"applied": table.applied, "frontiers": table.frontiers, "topic_id": topic_id}
    return _write(header, table.open_rows(), index)


def write_chunk(chunk: Chunk, index: SeriesIndex) -> bytes:
    """The page of one chunk."""
    return _write({"applied": chunk.applied}, chunk.rows.frame(), index)


def read_page(key: bytes, value: bytes) -> Page:
    """Raises FrameError for what is no page of this format."""
    try:
        family, part, epoch = key.decode().split("/")
        (length,) = _LENGTH.unpack_from(value)
        header = json.loads(value[_LENGTH.size : _LENGTH.size + length])
        if header["format"] != FORMAT:
            raise FrameError(f"page format {header['format']}; expected {FORMAT}")
        _ = header["series"], header["frontiers"].items() if part == OPEN else _chunk_key(part)
        return Page(family, part, epoch, int(header["applied"]), header, value[_LENGTH.size + length :])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as cause:
        message = f"page {key!r} of {len(value)} bytes cannot be read: {cause}"
        raise FrameError(message) from cause


def load(table: SloTable, pages: Iterable[Page], index: SeriesIndex) -> None:
    """Fill an empty table from the best page of each part. Raises FrameError for a page whose rows cannot be read."""
    applied, frontiers, open_rows = NEVER, {}, pl.DataFrame(schema=OPEN_SCHEMA)
    chunks: dict[ChunkKey, Chunk] = {}
    for page in pages:
        if page.part == OPEN:
            applied, open_rows = page.applied, _rows(page, OPEN_SCHEMA, index)
            frontiers = {int(source): at for source, at in page.header["frontiers"].items()}
        else:
            rows = Steps.from_frame(_rows(page, STEP_SCHEMA, index))
            chunks[_chunk_key(page.part)] = Chunk(rows, page.applied)
    table.restore(applied, frontiers, open_rows, chunks)


def _chunk_key(part: str) -> ChunkKey:
    tier, start = part.split(":")
    if tier not in {tier.name for tier in TIERS}:
        raise ValueError(f"part {part!r}; expected {OPEN!r} or tier:start")
    return tier, int(start)


def _rows(page: Page, schema: pl.Schema, index: SeriesIndex) -> pl.DataFrame:
    try:
        return index.localize(unpack(page.body, schema), page.header["series"])
    except (FrameError, pl.exceptions.OutOfBoundsError) as cause:
        message = f"page {page.key!r} at offset {page.applied} cannot be read: {cause}"
        raise FrameError(message) from cause


def _write(header: dict[str, Any], rows: pl.DataFrame, index: SeriesIndex) -> bytes:
    local, names = index.externalize(rows)
    head = json.dumps({"format": FORMAT, **header, "series": names}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(head)) + head + pack(local)


@dataclass(slots=True)
class PartPages:
    """The pages of one changelog partition: the best of each part, and every key that holds one."""

    best: dict[tuple[str, str], Page] = field(default_factory=dict)
    keys: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)
    unreadable: int = 0

    def apply(self, key: bytes, value: bytes | None) -> None:
        """One changelog record; None is a tombstone."""
        if value is None:
            for keys in self.keys.values():
                keys.discard(key)
            return
        try:
            page = read_page(key, value)
        except FrameError:
            self.unreadable += 1
            return
        name = (page.family, page.part)
        self.keys.setdefault(name, set()).add(key)
        known = self.best.get(name)
        if known is None or page.applied > known.applied:
            self.best[name] = page

    def of(self, family: str) -> Iterator[Page]:
        """The best page of each part of a family that has not been deleted."""
        return (page for name, page in self.best.items() if name[0] == family and self.keys.get(name))


class PageTable(faust.Table):  # type: ignore[type-arg]  # Faust's table takes no type arguments at run time
    """A Faust table whose changelog holds pages. Faust recovers it; the processors write it and read `pages`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Faust's signature
        super().__init__(*args, **kwargs)
        self.pages: dict[int, PartPages] = {}

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Faust read these records of the changelog."""
        for event in batch:
            message = event.message
            self.pages.setdefault(message.partition, PartPages()).apply(message.key or b"", message.value)
