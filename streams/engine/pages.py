"""State pages: how the objectives table survives its worker.

A page is one changelog record: key `family/part/owner epoch`, value a header and columnar rows. Of the same part the
page with the greatest applied offset counts, whoever wrote it and whenever: a stopped owner that wakes up writes old
pages. The epoch in the key keeps compaction from replacing a new owner's page by such an old one. The page of the open
cells says how new each chunk was: what left the open cells is nowhere else.
"""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import polars as pl

from streams.core.rows import OPEN_SCHEMA, STEP_SCHEMA, Steps
from streams.core.series import SeriesIndex
from streams.core.slices import TIERS
from streams.core.table import NEVER, Chunk, ChunkKey, SloTable
from streams.engine.frames import FrameError, pack, unpack

RowsT = TypeVar("RowsT")

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
    chunks = {chunk_part(key): chunk.applied for key, chunk in table.chunks.items()}
    header = {"applied": table.applied, "frontiers": table.frontiers, "topic_id": topic_id, "chunks": chunks}
    return _write(header, table.open_rows(), index)


def write_chunk(chunk: Chunk, index: SeriesIndex) -> bytes:
    """The page of one chunk."""
    return _write({"applied": chunk.applied}, chunk.rows.frame(), index)


def read_page(key: bytes, value: bytes) -> Page:
    """Raises FrameError for what is no page of this format."""
    try:
        family, part, epoch = _split(key)
        (length,) = _LENGTH.unpack_from(value)
        header = json.loads(value[_LENGTH.size : _LENGTH.size + length])
        if header["format"] != FORMAT:
            raise FrameError(f"page format {header['format']}; expected {FORMAT}")
        _ = header["series"], (header["frontiers"].items(), header.get("chunks", {}).items()) if part == OPEN else None
        return Page(family, part, epoch, int(header["applied"]), header, value[_LENGTH.size + length :])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as cause:
        message = f"page {key!r} of {len(value)} bytes cannot be read: {cause}"
        raise FrameError(message) from cause


def load(table: SloTable, pages: "PartPages", family: str, index: SeriesIndex) -> list[str]:
    """Fill an empty table from the best pages of its parts; returns why pages could not be used.

    When one could not, the others do not make a whole: the table begins before all input, with the chunks there are. It
    must be given its input again, from as far back as there is some; what the chunks hold already is not added again.
    """
    reasons = pages.unreadable(family)
    found = pages.of(family)
    chunks: dict[ChunkKey, Chunk] = {}
    for part in found.keys() - {OPEN}:
        best = _first(found[part], lambda page: Steps.from_frame(_rows(page, STEP_SCHEMA, index)), reasons)
        if best is not None:
            page, steps = best
            chunks[_chunk_key(part)] = Chunk(steps, page.applied)

    lacking = {page.key: why for page in found.get(OPEN, ()) if (why := _lacks(page, chunks))}
    whole = [page for page in found.get(OPEN, ()) if page.key not in lacking]
    stands = _first(whole, lambda page: _rows(page, OPEN_SCHEMA, index), reasons)
    if stands is None:
        reasons = reasons or list(lacking.values())
    if stands is None or reasons:
        table.restore(NEVER, {}, pl.DataFrame(schema=OPEN_SCHEMA), chunks)
    else:
        page, rows = stands
        frontiers = {int(source): at for source, at in page.header["frontiers"].items()}
        table.restore(page.applied, frontiers, rows, chunks)
    return reasons


def _first(candidates: Iterable[Page], read: Callable[[Page], RowsT], reasons: list[str]) -> tuple[Page, RowsT] | None:
    """The first page that can be read; adds why others could not."""
    for page in candidates:
        try:
            return page, read(page)
        except FrameError as error:
            reasons.append(str(error))
    return None


def _lacks(page: Page, chunks: Mapping[ChunkKey, Chunk]) -> str:
    """Which chunk is older than when the page was written; what left the open cells since would be nowhere.

    An owner makes it so that deletes what a stopped one, further on than itself, has just written.
    """
    for part, applied in page.header.get("chunks", {}).items():
        chunk = chunks.get(_chunk_key(part))
        if chunk is None or chunk.applied < applied:
            found = "none" if chunk is None else f"one at {chunk.applied}"
            return f"page {page.key!r} at offset {page.applied} stands for chunk {part} at {applied}; found {found}"
    return ""


def _split(key: bytes) -> tuple[str, str, str]:
    """Family, part and epoch. Raises ValueError for what is no key of a page."""
    family, part, epoch = key.decode().split("/")
    if part != OPEN:
        _chunk_key(part)
    return family, part, epoch


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


class PartPages:
    """The pages of one changelog partition: for each part (family, name) the page under each of its keys."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], set[bytes]] = {}
        self._pages: dict[bytes, Page] = {}
        self._unreadable: dict[bytes, str] = {}  # by keys of pages

    def apply(self, key: bytes, value: bytes | None) -> None:
        """One changelog record; None is a tombstone. What was never a page of ours is passed over."""
        try:
            family, part, _ = _split(key)
        except ValueError:
            return
        self._unreadable.pop(key, None)
        keys = self.keys.setdefault((family, part), set())
        if value is None:
            keys.discard(key)
            self._pages.pop(key, None)
            return
        keys.add(key)
        try:
            page = read_page(key, value)
        except FrameError as error:
            self._unreadable[key] = str(error)
            return
        known = self._pages.get(key)
        if known is None or page.applied > known.applied:
            self._pages[key] = page

    def of(self, family: str) -> dict[str, list[Page]]:
        """The pages of each part of a family, the one with the greatest applied offset first."""
        found: dict[str, list[Page]] = {}
        for (name, part), keys in self.keys.items():
            pages = [self._pages[key] for key in keys if key in self._pages]
            if name == family and pages:
                found[part] = sorted(pages, key=lambda page: page.applied, reverse=True)
        return found

    def unreadable(self, family: str) -> list[str]:
        """Why the last page under a key cannot be read, for each such key of a family."""
        return [why for key, why in self._unreadable.items() if _split(key)[0] == family]
