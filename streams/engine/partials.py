"""Flushes ⇄ records of `slo-partials`."""

from collections.abc import Iterator, Sequence

import polars as pl

from schemas.codec import decode, encode
from schemas.records import SloPartial, Source
from streams.core.rollup import CELL_ROWS
from streams.core.series import SeriesIndex
from streams.core.table import Heading
from streams.engine.frames import FrameError, pack, unpack

# Leaves room under the broker's default of 1 MiB a record.
MAX_RECORD_BYTES = 900_000


def write_partials(
    topic: str, topic_id: str, sources: Sequence[Source], rows: pl.DataFrame, index: SeriesIndex
) -> Iterator[bytes]:
    """Framed records with all `rows` (CELL_ROWS), each small enough; only the last one carries the frontiers.

    A cell is never spread over two records, or the later one would replace the earlier.
    """
    local, names = index.externalize(rows)
    cells = pack(local.sort("series", "source", "slice", "bucket"))
    if len(cells) > MAX_RECORD_BYTES and len(names) > 1:
        middle = rows["series"].unique().sort().gather([len(names) // 2]).item()
        silent = [Source(source.partition, source.applied_offset) for source in sources]
        yield from write_partials(topic, topic_id, silent, rows.filter(pl.col("series") < middle), index)
        yield from write_partials(topic, topic_id, sources, rows.filter(pl.col("series") >= middle), index)
        return
    yield encode(SloPartial(topic, topic_id, tuple(sources), tuple(names), cells))


def read_partial(value: bytes | None, index: SeriesIndex) -> tuple[SloPartial, pl.DataFrame]:
    """The record and its rows with our series numbers. Raises DecodeError or FrameError."""
    record = decode(value)
    if not isinstance(record, SloPartial):
        message = f"a {type(record).__name__}; expected a SloPartial"
        raise FrameError(message)
    rows = unpack(record.cells, CELL_ROWS)
    if rows.height and int(rows["series"].max() or 0) >= len(record.series):  # type: ignore[arg-type]
        message = f"a row names series {rows['series'].max()!r} of {len(record.series)}"
        raise FrameError(message)
    return record, index.localize(rows, record.series)


def heading(offset: int, record: SloPartial) -> Heading:
    """What the table needs of a record besides its rows."""
    return Heading(
        offset, tuple((source.partition, source.applied_offset, source.frontier) for source in record.sources)
    )
