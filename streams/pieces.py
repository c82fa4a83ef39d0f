"""What was polled of a topic → columns: whole batches where there is no doubt, else record by record."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import BlockReader, Reject
from schemas.dead_letters import UNREADABLE_BATCH
from schemas.record_batches import SIGNATURE, VALUE, RecordBatch
from schemas.signatures import HEADER
from streams.raw import RawBatch, UnreadableBatchError
from streams.unpacking import MAX_UNPACKED_BYTES

Records = list[ConsumerRecord[bytes, bytes]]
Longs = npt.NDArray[np.int64]

# What a batch costs apart from its records. Fewer than so many are read sooner one by one: nodes that report for
# themselves send batches of one.
WORTH_IT = 8


# What is read at once may take so many bytes, unpacked: far more than ever waits of what nodes say.
ROOM_BYTES = 256 << 20
# What a record takes as an object or a row, apart from its bytes.
_RECORD_BYTES = 512


class Room:
    """How much of what waits may still be unpacked; the batch that no longer fits is the last one."""

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self._left = size

    def __bool__(self) -> bool:
        return self._left > 0

    def use(self, size: int) -> None:
        """So many bytes are held now."""
        self._left -= size


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch with its records, unpacked."""

    batch: RawBatch
    content: RecordBatch

    def __len__(self) -> int:
        return self.batch.count


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A batch of which no record can be read. It stands for one record, the last; the others are as if not there."""

    batch: RawBatch
    detail: str

    def __len__(self) -> int:
        return 1

    @property
    def reject(self) -> Reject:
        """Why; the row is that of the piece."""
        batch = self.batch
        offsets = f"offsets {batch.base_offset} to {batch.next_offset - 1}"
        return Reject(0, UNREADABLE_BATCH, f"a batch of {batch.count} records, {offsets}: {self.detail}")

    @property
    def record(self) -> ConsumerRecord[bytes, bytes]:
        """What stands for them."""
        tp, offset = self.batch.tp, self.batch.next_offset - 1
        return ConsumerRecord(tp.topic, tp.partition, offset, self.batch.time_ms, 1, None, None, None, -1, -1, ())


Piece = Opened | Unreadable | Records


@dataclass(frozen=True, slots=True)
class Reading:
    """`frame`: the good rows, `_row` counts over all records of `pieces`; each reject is about one of `rejected`.

    `pieces` are those that were read, without empty ones; batches in doubt are lists of records here.
    """

    pieces: list[Piece]
    frame: pl.DataFrame
    rejects: list[Reject]
    rejected: Records


def pieces_of(batches: Sequence[RawBatch], first: int, room: Room) -> tuple[list[Piece], int]:
    """One partition's batches from the offset `first` on, those that are not worth it as records.

    Unpacks as many of them as there is room for; how many these are is returned too.
    """
    pieces: list[Piece] = []
    for taken, batch in enumerate(batches):
        if not room:
            return pieces, taken
        try:
            content = batch.content()
            room.use(len(content.records) + batch.count * _RECORD_BYTES)
            # Of those that begin ahead of what is wanted there is at most one, after a seek.
            if batch.base_offset >= first and batch.count >= WORTH_IT:
                pieces.append(Opened(batch, content))
                continue
            records = [record for record in batch.records(content) if record.offset >= first]
        except UnreadableBatchError as cause:
            room.use(MAX_UNPACKED_BYTES)  # the time that it took
            pieces.append(Unreadable(batch, str(cause)))
            continue
        if pieces and isinstance(pieces[-1], list):
            pieces[-1] += records
        else:
            pieces.append(records)
    return pieces, len(batches)


def read_pieces(reader: BlockReader, pieces: list[Piece]) -> Reading:
    """Everything in the pieces."""
    pieces = list(pieces)
    opened = [(place, piece) for place, piece in enumerate(pieces) if isinstance(piece, Opened)]
    whole = [place for place, _ in opened]
    frame, doubtful = reader.read_batches([piece.content for _, piece in opened])
    counts = [len(piece) for _, piece in opened]
    for number in doubtful:
        place, piece = opened[number]
        pieces[place] = _one_by_one(piece)
    listed = [place for place, piece in enumerate(pieces) if isinstance(piece, list)]
    unreadable = [(place, piece) for place, piece in enumerate(pieces) if isinstance(piece, Unreadable)]
    read = list(filter(len, pieces))
    if not (listed or unreadable):
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
    rejects = [*block.rejects, *(piece.reject for _, piece in unreadable)]
    rejected = [*(records[reject.row] for reject in block.rejects), *(piece.record for _, piece in unreadable)]
    return Reading(read, pl.concat(parts).sort("_row"), rejects, rejected)


def _one_by_one(piece: Opened) -> Piece:
    try:
        return list(piece.batch.records(piece.content))
    except UnreadableBatchError as cause:
        return Unreadable(piece.batch, str(cause))


def partition_of(piece: Piece) -> int:
    """The one that all its records are of."""
    partition: int = piece[0].partition if isinstance(piece, list) else piece.batch.tp.partition
    return partition


def places_of(piece: Piece) -> tuple[Longs, Longs]:
    """Offset and append time of each record."""
    count = len(piece)
    if isinstance(piece, Unreadable):
        piece = [piece.record]
    if isinstance(piece, Opened):
        batch = piece.batch
        return np.arange(batch.base_offset, batch.base_offset + count), np.full(count, batch.time_ms)
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
            opened = place, _records(piece)
        found.append(opened[1][row - int(ends[place])])
    return found


def _records(piece: Piece) -> Records:
    if isinstance(piece, Opened):
        return list(piece.batch.records(piece.content))
    return [piece.record] if isinstance(piece, Unreadable) else piece


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
