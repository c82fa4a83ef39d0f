"""Flushes ⇄ records of `slo-partials`."""

from collections.abc import Iterator, Sequence

import polars as pl

from schemas.codec import decode, encode
from schemas.records import SloPartial, Source
from streams.core.cells import CELL, CELL_ROWS
from streams.core.series import SeriesIndex
from streams.core.sources import lane
from streams.core.table import Heading
from streams.engine.frames import FrameError, pack, unpack

# Leaves room under the broker's default of 1 MiB a record.
MAX_RECORD_BYTES = 900_000
# Of one record; such a one has a million rows.
MAX_CELLS_BYTES = 64 << 20


def write_partials(
    topic: str, topic_id: str, sources: Sequence[Source], rows: pl.DataFrame, index: SeriesIndex
) -> Iterator[bytes]:
    """Framed records with all `rows` (CELL_ROWS), each small enough; only the last one carries the frontiers.

    A cell is never spread over two records, or the later one would replace the earlier.
    """

    def parts(tellers: tuple[Source, ...], cells: pl.DataFrame) -> Iterator[bytes]:
        local, names = index.externalize(cells)
        value = encode(SloPartial(topic, topic_id, tellers, tuple(names), pack(local)))
        ordered = cells.sort(*CELL, "bucket") if len(value) > MAX_RECORD_BYTES else cells.clear()
        middle = _between_cells(ordered)
        if not middle:
            yield value
            return
        yield from parts(silent, ordered[:middle])
        yield from parts(tellers, ordered[middle:])

    silent = tuple(Source(source.partition, source.applied_offset) for source in sources)
    yield from parts(tuple(sources), rows)


def _between_cells(ordered: pl.DataFrame) -> int:
    """A row near the middle with which a cell begins; 0 when there is no more than one cell."""
    if ordered.is_empty():
        return 0
    cells = ordered.select(pl.struct(CELL).rle_id()).to_series()
    middle = int(cells.search_sorted(cells[len(cells) // 2], side="left"))
    return middle or int(cells.search_sorted(0, side="right")) % len(cells)


def read_partial(value: bytes | None, index: SeriesIndex) -> tuple[SloPartial, pl.DataFrame]:
    """The record and its rows with our series numbers. Raises DecodeError or FrameError."""
    record = decode(value)
    if not isinstance(record, SloPartial):
        message = f"a {type(record).__name__}; expected a SloPartial"
        raise FrameError(message)
    try:
        for source in record.sources:
            lane(record.topic, source.partition)
    except ValueError as cause:
        raise FrameError(f"cells of {cause}") from None
    rows = unpack(record.cells, CELL_ROWS, MAX_CELLS_BYTES)
    if rows.height and (highest := int(rows["series"].to_numpy().max())) >= len(record.series):
        message = f"a row names series {highest} of {len(record.series)}"
        raise FrameError(message)
    return record, index.localize(rows, record.series)


def heading(offset: int, record: SloPartial) -> Heading:
    """What the table needs of a record besides its rows."""
    sources = tuple((source.partition, source.applied_offset, source.frontier) for source in record.sources)
    return Heading(offset, sources, record.topic_id, record.topic)
