"""What was polled of a topic → columns: whole batches where there is no doubt, else record by record."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import BlockReader, Reject
from schemas.record_batches import SIGNATURE, VALUE
from schemas.signatures import HEADER
from streams.raw import RawBatch

Records = list[ConsumerRecord[bytes, bytes]]
Piece = RawBatch | Records
Longs = npt.NDArray[np.int64]

# What a batch costs apart from its records. Fewer than so many are read sooner one by one: nodes that report for
# themselves send batches of one.
WORTH_IT = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """`frame`: the good rows, `_row` counts over all records of `pieces`; each reject is about one of `rejected`.

    `pieces` are those that were read, without empty ones; batches in doubt are lists of records here.
    """

    pieces: list[Piece]
    frame: pl.DataFrame
    rejects: list[Reject]
    rejected: Records


def pieces_of(batches: Sequence[RawBatch], first: int) -> list[Piece]:
    """One partition's batches from the offset `first` on, those that are not worth it as records."""
    pieces: list[Piece] = []
    for batch in batches:
        # Of those that begin ahead of what is wanted there is at most one, after a seek.
        if batch.base_offset >= first and batch.count >= WORTH_IT:
            pieces.append(batch)
            continue
        records = [record for record in batch.records() if record.offset >= first]
        if pieces and isinstance(pieces[-1], list):
            pieces[-1] += records
        else:
            pieces.append(records)
    return pieces


def read_pieces(reader: BlockReader, pieces: list[Piece]) -> Reading:
    """Everything in the pieces. Raises CorruptRecordException for what is no batch."""
    pieces = list(pieces)
    whole = [place for place, piece in enumerate(pieces) if isinstance(piece, RawBatch)]
    frame, doubtful = reader.read_batches([pieces[place].content() for place in whole])  # type: ignore[union-attr]
    counts = [len(pieces[place]) for place in whole]
    for number in doubtful:
        pieces[whole[number]] = list(pieces[whole[number]].records())  # type: ignore[union-attr]
    listed = [place for place, piece in enumerate(pieces) if not isinstance(piece, RawBatch)]
    read = list(filter(len, pieces))
    if not listed:
        return Reading(read, frame, [], [])
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    first: Longs = np.cumsum(lengths) - lengths
    records: Records = [record for place in listed for record in pieces[place]]  # type: ignore[union-attr]
    block = reader.read([record.key for record in records], [record.value for record in records])
    alone = _with_signatures(block.frame, records) if reader.signatures else block.frame
    parts = (
        _moved(frame, counts, first[whole]),
        _moved(alone, lengths[listed], first[listed]),
    )
    rejected = [records[reject.row] for reject in block.rejects]
    return Reading(read, pl.concat(parts).sort("_row"), list(block.rejects), rejected)


def partition_of(piece: Piece) -> int:
    """The one that all its records are of."""
    partition: int = piece.tp.partition if isinstance(piece, RawBatch) else piece[0].partition
    return partition


def places_of(piece: Piece) -> tuple[Longs, Longs]:
    """Offset and append time of each record."""
    count = len(piece)
    if isinstance(piece, RawBatch):
        return np.arange(piece.base_offset, piece.base_offset + count), np.full(count, piece.time_ms)
    offsets = np.fromiter(map(attrgetter("offset"), piece), np.int64, count)
    return offsets, np.fromiter(map(attrgetter("timestamp"), piece), np.int64, count)


def records_at(pieces: Sequence[Piece], rows: Sequence[int]) -> Records:
    """Some of all records of the pieces, by their place among them, ascending. For few of them: batches are read."""
    found: Records = []
    ends = np.cumsum([len(piece) for piece in pieces])
    opened: tuple[int, Records] = (-1, [])
    for row in rows:
        place = int(np.searchsorted(ends, row, side="right"))
        if opened[0] != place:
            piece = pieces[place]
            opened = place, list(piece.records()) if isinstance(piece, RawBatch) else piece
        found.append(opened[1][row - int(ends[place])])
    return found


def _with_signatures(frame: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Rows of `records` with the columns that rows of whole batches have."""
    rows = frame["_row"]
    own = [records[row] for row in rows.to_list()]
    signatures = pl.Series(SIGNATURE, [_signature(record.headers) for record in own], pl.Binary)
    values = pl.Series(VALUE, [record.value for record in own], pl.Binary)
    return frame.drop("_row").hstack([signatures, values, rows])


def _signature(headers: Sequence[tuple[str, bytes | None]]) -> bytes | None:
    """None without the header; b"", which stands for no good one, where there are several or it is null."""
    found = [value for name, value in headers if name == HEADER]
    if not found:
        return None
    return (found[0] or b"") if len(found) == 1 else b""


def _moved(frame: pl.DataFrame, lengths: Sequence[int] | Longs, first: Longs) -> pl.DataFrame:
    """`_row` counts over the pieces of these lengths one after the other; from now on over all, where they begin."""
    if frame.is_empty():
        return frame
    shifts = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    rows = frame["_row"].to_numpy()
    return frame.with_columns(_row=pl.Series(rows + shifts[rows], dtype=pl.UInt32))
