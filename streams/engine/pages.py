"""State pages: how the objectives table survives its worker.

A page is one changelog record: key `family/part/owner epoch`, value a header and columnar rows. Of the same part the
page with the greatest applied offset counts, whoever wrote it and whenever: a stopped owner that wakes up writes old
pages. The epoch in the key keeps compaction from replacing a new owner's page by such an old one. The page of the open
cells says how new each chunk was: what left the open cells is nowhere else.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import polars as pl

from streams.core.lineage import Lineage
from streams.core.rows import OPEN_SCHEMA, STEP_SCHEMA, Steps
from streams.core.series import SeriesIndex, externalize
from streams.core.slices import TIERS
from streams.core.sources import PROBES, place_of
from streams.core.summaries import ChunkKey
from streams.core.table import NEVER, Chunk, SloTable
from streams.engine.frames import FrameError, pack, unpack
from streams.engine.page_heads import NAMES_COMPRESSED, SLO_FORMAT, Origin, read_head, write_head

RowsT = TypeVar("RowsT")

OPEN = "open"
_NAMES_LEVEL = 1  # half a megabyte of names takes 5 ms, and a tenth of the room
MAX_NAMES_BYTES = 64 << 20


class NotWholeError(RuntimeError):
    """The input was created anew, and the pages of the earlier one do not make a whole: what is missing is nowhere."""

    def __init__(self, family: str, why: str) -> None:
        super().__init__(
            f"pages of {family} are of a topic that was deleted since, and do not make a whole: {why}; expected "
            "that, or the topic's records (`fleetbeat state rebuild` begins anew from what the topics hold)"
        )


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was read; `part` is `open` or `tier:chunk start`."""

    family: str
    part: str
    epoch: str
    applied: int
    origin: Origin
    header: dict[str, Any] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """Its changelog key."""
        return page_key(self.family, self.part, self.epoch)

    @property
    def place(self) -> tuple[int, int]:
        """Of two pages the one with the greater place is newer: an offset counts within its log."""
        return self.origin.generation, self.applied

    def applied_in(self, generation: int) -> int:
        """The offset as one of that log: before its beginning when the page is of an earlier one."""
        return self.applied if self.origin.generation == generation else NEVER


def page_key(family: str, part: str, epoch: str) -> bytes:
    """The changelog key of a page."""
    return f"{family}/{part}/{epoch}".encode()


def chunk_part(key: ChunkKey) -> str:
    """The part name of a chunk's page."""
    return f"{key[0]}:{key[1]}"


Write = Callable[[], bytes]
"""Makes the bytes of a page as it was taken, whatever has been folded since: on any thread."""


def take_open(table: SloTable, origin: Origin, index: SeriesIndex) -> Write:
    """The page of a table's open cells; it stands for the table: written after the chunks, read before them."""
    chunks = {chunk_part(key): chunk.applied for key, chunk in table.chunks.items()}
    topics = {source: list(ids) for source, ids in table.lineage.topics.items()}
    cells = table.open_cells()
    sources = {"topics": topics.pop(PROBES, []), "newest": dict(table.lineage.newest), "others": topics}
    header = {"applied": table.applied, "frontiers": dict(table.frontiers), "sources": sources, "chunks": chunks}
    names = index.names  # by which these cells are numbered: the index may forget names before they are written
    return lambda: _write({**header, **origin.header}, cells.frame(), names)


def take_chunk(chunk: Chunk, origin: Origin, index: SeriesIndex) -> Write:
    """The page of one chunk."""
    header, rows, names = {"applied": chunk.applied, **origin.header}, chunk.rows, index.names
    return lambda: _write(header, rows.frame(), names)


def write_open(table: SloTable, origin: Origin, index: SeriesIndex) -> bytes:
    """`take_open`, now."""
    return take_open(table, origin, index)()


def write_chunk(chunk: Chunk, origin: Origin, index: SeriesIndex) -> bytes:
    """`take_chunk`, now."""
    return take_chunk(chunk, origin, index)()


def read_page(key: bytes, value: bytes) -> Page:
    """Raises PageFormatError for a page of a newer format, FrameError for what is no page."""
    try:
        family, part, epoch = _split(key)
        header, body = read_head(value, f"page {key!r}", SLO_FORMAT)
        _ = body[int(header["names"])] if header["format"] >= NAMES_COMPRESSED else header["series"]
        if part == OPEN:
            _ = _frontiers(header), _lineage(header), header.get("chunks", {}).items()
        return Page(family, part, epoch, int(header["applied"]), Origin.of(header), header, body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as cause:
        message = f"page {key!r} of {len(value)} bytes cannot be read: {cause}"
        raise FrameError(message) from cause


def load(
    table: SloTable, pages: "PartPages", family: str, index: SeriesIndex, origin: Origin | None = None
) -> list[str]:
    """Fill an empty table from the best pages of its parts; returns why pages could not be used.

    When one could not, the others do not make a whole: the table begins before all input, with the chunks there are. It
    must be given its input again, from as far back as there is some; what the chunks hold already is not added again.
    `origin`: of the input that is there now. What pages of an earlier one hold is kept, as from before its beginning.
    Raises NotWholeError.
    """
    now = max((p.origin.generation for p in pages.all()), default=0) if origin is None else origin.generation
    reasons = pages.unreadable(family)
    found = pages.of(family)
    chunk_pages: dict[str, Page] = {}
    chunks: dict[ChunkKey, Chunk] = {}
    for part in found.keys() - {OPEN}:
        best = _first(found[part], lambda page: Steps.from_frame(_rows(page, STEP_SCHEMA, index)), reasons)
        if best is not None:
            page, steps = best
            chunk_pages[part] = page
            chunks[_chunk_key(part)] = Chunk(steps, page.applied_in(now))

    lacking = {page.key: why for page in found.get(OPEN, ()) if (why := _lacks(page, chunk_pages))}
    whole = [page for page in found.get(OPEN, ()) if page.key not in lacking]
    stands = _first(whole, lambda page: _rows(page, OPEN_SCHEMA, index), reasons)
    if stands is None:
        reasons = reasons or list(lacking.values())
    earlier = [part for part, page in chunk_pages.items() if page.origin.generation != now]
    if stands is None or reasons:
        if earlier:  # their cells would be added again
            raise NotWholeError(family, reasons[0] if reasons else f"chunk {earlier[0]} without open cells")
        table.restore(NEVER, {}, pl.DataFrame(schema=OPEN_SCHEMA), chunks)
        return reasons
    page, rows = stands
    if page.origin.generation != now:
        _require_whole(family, page, chunk_pages)
        rows = rows.with_columns(offset=pl.lit(NEVER, pl.Int64))
    table.restore(page.applied_in(now), _frontiers(page.header), rows, chunks, _lineage(page.header))
    return reasons


def _require_whole(family: str, page: Page, chunks: Mapping[str, Page]) -> None:
    """What is in the open cells and in a chunk too is told apart by offsets, which mean nothing any more."""
    for part, chunk in chunks.items():
        if chunk.origin.generation == page.origin.generation and chunk.applied > page.applied:
            raise NotWholeError(family, f"chunk {part} is at offset {chunk.applied}, the open cells at {page.applied}")


def _first(candidates: Iterable[Page], read: Callable[[Page], RowsT], reasons: list[str]) -> tuple[Page, RowsT] | None:
    """The first page that can be read; adds why others could not."""
    for page in candidates:
        try:
            return page, read(page)
        except FrameError as error:
            reasons.append(str(error))
    return None


def _lacks(page: Page, chunks: Mapping[str, Page]) -> str:
    """Which chunk is older than when the page was written; what left the open cells since would be nowhere.

    An owner makes it so that deletes what a stopped one, further on than itself, has just written.
    """
    for part, applied in page.header.get("chunks", {}).items():
        chunk, generation = chunks.get(part), page.origin.generation
        if chunk is None or (chunk.origin.generation <= generation and chunk.applied_in(generation) < applied):
            found = "none" if chunk is None else f"one at {chunk.applied}"
            return f"page {page.key!r} at offset {page.applied} stands for chunk {part} at {applied}; found {found}"
    return ""


def _frontiers(header: dict[str, Any]) -> dict[int, int]:
    frontiers = {int(lane): int(at) for lane, at in header["frontiers"].items()}
    for lane in frontiers:
        place_of(lane)
    return frontiers


def _lineage(header: dict[str, Any]) -> Lineage:
    sources = header.get("sources", {})
    newest = {int(lane): int(topic) for lane, topic in sources.get("newest", {}).items()}
    topics = {PROBES: sources.get("topics", ()), **sources.get("others", {})}
    return Lineage({source: [str(topic) for topic in ids] for source, ids in topics.items()}, newest)


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
        names, body = _names(page)
        return index.localize(unpack(body, schema), names)
    except (FrameError, IndexError, ValueError, zlib.error) as cause:
        message = f"page {page.key!r} at offset {page.applied} cannot be read: {cause}"
        raise FrameError(message) from cause


def _write(header: dict[str, Any], rows: pl.DataFrame, names: Sequence[str]) -> bytes:
    local, used = externalize(rows, names)
    packed = zlib.compress(json.dumps(used, separators=(",", ":")).encode(), _NAMES_LEVEL)
    return write_head({**header, "names": len(packed)}, SLO_FORMAT) + packed + pack(local)


def _names(page: Page) -> tuple[list[str], bytes]:
    """The names of the page's series, and its rows' bytes. Raises ValueError, FrameError and zlib.error."""
    if page.header["format"] < NAMES_COMPRESSED:
        return page.header["series"], page.body
    size = int(page.header["names"])
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(page.body[:size], MAX_NAMES_BYTES)
    if not unpacking.eof:
        raise FrameError(f"names of {size} bytes that do not end within {MAX_NAMES_BYTES}")
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FrameError("names that are not a list of texts")
    return names, page.body[size:]


class PartPages:
    """The pages of one changelog partition: for each part (family, name) the page under each of its keys."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], set[bytes]] = {}
        self._pages: dict[bytes, Page] = {}
        self._unreadable: dict[bytes, str] = {}  # by keys of pages

    def apply(self, key: bytes, value: bytes | None) -> None:
        """One changelog record; None is a tombstone. What was never a page of ours is passed over.

        Raises PageFormatError.
        """
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
        if known is None or page.place > known.place:
            self._pages[key] = page

    def all(self) -> Iterable[Page]:
        """Of each key the newest page."""
        return self._pages.values()

    def of(self, family: str) -> dict[str, list[Page]]:
        """The pages of each part of a family, the newest first."""
        found: dict[str, list[Page]] = {}
        for (name, part), keys in self.keys.items():
            pages = [self._pages[key] for key in keys if key in self._pages]
            if name == family and pages:
                found[part] = sorted(pages, key=lambda page: page.place, reverse=True)
        return found

    def unreadable(self, family: str) -> list[str]:
        """Why the last page under a key cannot be read, for each such key of a family."""
        return [why for key, why in self._unreadable.items() if _split(key)[0] == family]
