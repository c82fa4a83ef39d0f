"""Polls of a source topic → columns: whole batches where there is no doubt, else record by record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import BlockReader, Reject
from streams import metrics
from streams.core.rollup import SourceBatch
from streams.engine.raw import RawBatch
from streams.engine.transport import Poll, RawPoll, require_append_time
from streams.processors.dead_letters import dead_letters

Records = list[ConsumerRecord[bytes, bytes]]
Longs = npt.NDArray[np.int64]

# What a batch costs apart from its records. Fewer than so many are read sooner one by one: nodes that report for
# themselves send batches of one.
WORTH_IT = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """`batches`: all records; `frame`: the good ones, `_row` counts over `batches`; each reject is about a record."""

    batches: list[SourceBatch]
    frame: pl.DataFrame
    rejects: list[Reject]
    rejected: Records


def fresh_letters(topic: str, reading: Reading, begins: Mapping[int, int]) -> list[tuple[bytes | None, bytes]]:
    """Dead letters for what cannot be read and was not seen before: from `begins` on, by partition."""
    found = zip(reading.rejects, reading.rejected, strict=True)
    fresh = [(reject, record) for reject, record in found if record.offset >= begins[record.partition]]
    for reject, _ in fresh:
        metrics.REJECTED.labels(topic, reject.reason).inc()
    rejects = [replace(reject, row=row) for row, (reject, _) in enumerate(fresh)]
    return dead_letters([record for _, record in fresh], rejects, "worker")


class SourceReader:
    """Reads one topic; used by one thread."""

    def __init__(self, topic: str, columns: Sequence[str]) -> None:
        self._reader = BlockReader(topic, columns)

    def read(self, polls: Sequence[Poll | RawPoll]) -> Reading:
        """Everything in the polls. Raises NotAppendTimeError, and CorruptRecordException for what is no batch."""
        pieces = [piece for poll in polls for piece in _pieces(poll)]
        require_append_time(piece for piece in pieces if isinstance(piece, RawBatch))
        whole = [place for place, piece in enumerate(pieces) if isinstance(piece, RawBatch)]
        frame, doubtful = self._reader.read_batches([pieces[place].content() for place in whole])  # type: ignore[union-attr]
        counts = [len(pieces[place]) for place in whole]
        for number in doubtful:
            pieces[whole[number]] = list(pieces[whole[number]].records())  # type: ignore[union-attr]
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        first: Longs = np.cumsum(lengths) - lengths
        batches = [_source_batch(list(run)) for _, run in groupby(filter(len, pieces), _partition)]
        listed = [place for place, piece in enumerate(pieces) if not isinstance(piece, RawBatch)]
        if not listed:
            return Reading(batches, frame, [], [])
        records: Records = [record for place in listed for record in pieces[place]]  # type: ignore[union-attr]
        require_append_time(records)
        block = self._reader.read([record.key for record in records], [record.value for record in records])
        parts = (
            _moved(frame, counts, first[whole]),
            _moved(block.frame, lengths[listed], first[listed]),
        )
        rejected = [records[reject.row] for reject in block.rejects]
        return Reading(batches, pl.concat(parts).sort("_row"), list(block.rejects), rejected)


def _pieces(poll: Poll | RawPoll) -> list[RawBatch | Records]:
    if isinstance(poll, Poll):
        return [poll]
    pieces: list[RawBatch | Records] = []
    for batch in poll.batches:
        # Of those that begin ahead of what is wanted there is at most one, after a seek.
        if batch.base_offset >= poll.first and batch.count >= WORTH_IT:
            pieces.append(batch)
            continue
        records = [record for record in batch.records() if record.offset >= poll.first]
        if pieces and isinstance(pieces[-1], list):
            pieces[-1] += records
        else:
            pieces.append(records)
    return pieces


def _moved(frame: pl.DataFrame, lengths: Sequence[int] | Longs, first: Longs) -> pl.DataFrame:
    """`_row` counts over the pieces of these lengths one after the other; from now on over all, where they begin."""
    if frame.is_empty():
        return frame
    shifts = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    rows = frame["_row"].to_numpy()
    return frame.with_columns(_row=pl.Series(rows + shifts[rows], dtype=pl.UInt32))


def _partition(piece: RawBatch | Records) -> int:
    partition: int = piece.tp.partition if isinstance(piece, RawBatch) else piece[0].partition
    return partition


def _source_batch(run: list[RawBatch | Records]) -> SourceBatch:
    """Pieces of one partition that follow each other."""
    columns = [_columns(piece) for piece in run]
    offsets, append_ms = (np.concatenate(column) for column in zip(*columns, strict=True))
    return SourceBatch(_partition(run[0]), offsets, append_ms)


def _columns(piece: RawBatch | Records) -> tuple[Longs, Longs]:
    count = len(piece)
    if isinstance(piece, RawBatch):
        return np.arange(piece.base_offset, piece.base_offset + count), np.full(count, piece.time_ms)
    offsets = np.fromiter(map(attrgetter("offset"), piece), np.int64, count)
    return offsets, np.fromiter(map(attrgetter("timestamp"), piece), np.int64, count)
