"""Polls of a source topic → columns, and the dead letters about what is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import polars as pl

from schemas.blocks import BlockReader, Reject
from streams import metrics
from streams.core.rollup import SourceBatch
from streams.engine.transport import Poll, RawPoll, require_append_time
from streams.pieces import Piece, Records, Room, partition_of, pieces_of, places_of, read_pieces
from streams.processors.dead_letters import Letters, dead_letters


@dataclass(frozen=True, slots=True)
class Reading:
    """`batches`: all records; `frame`: the good ones, `_row` counts over `batches`; each reject is about a record.

    `pieces`: all records as they were read. `left`: what there was no room for; it comes after what was read.
    """

    batches: list[SourceBatch]
    frame: pl.DataFrame
    rejects: list[Reject]
    rejected: Records
    pieces: list[Piece]
    left: list[Poll | RawPoll]


def fresh_letters(topic: str, reading: Reading, begins: Mapping[int, int]) -> Letters:
    """Dead letters for what cannot be read and was not seen before: from `begins` on, by partition."""
    found = zip(reading.rejects, reading.rejected, strict=True)
    fresh = [(reject, record) for reject, record in found if record.offset >= begins[record.partition]]
    for reject, _ in fresh:
        metrics.REJECTED.labels(topic, reject.reason).inc()
    rejects = [replace(reject, row=row) for row, (reject, _) in enumerate(fresh)]
    return dead_letters([record for _, record in fresh], rejects, "worker")


class SourceReader:
    """Reads one topic; used by one thread."""

    def __init__(self, topic: str, columns: Sequence[str], *, signatures: bool = False) -> None:
        """`signatures`: rows have SIGNATURE and VALUE too (`schemas.record_batches`)."""
        self._reader = BlockReader(topic, columns, signatures=signatures)

    def read(self, polls: Sequence[Poll | RawPoll]) -> Reading:
        """As much of the polls as there is room for at once, usually all. Raises NotAppendTimeError."""
        room, pieces, left = Room(), list[Piece](), list[Poll | RawPoll]()
        for poll in polls:
            if not room:
                left.append(poll)
            elif isinstance(poll, Poll):
                require_append_time(poll)
                pieces.append(poll)
            else:
                require_append_time(poll.batches)
                found, taken = pieces_of(poll.batches, poll.first, room)
                pieces += found
                if taken < len(poll.batches):
                    left.append(poll.since(poll.batches[taken].base_offset))
        read = read_pieces(self._reader, pieces)
        batches = [_source_batch(list(run)) for _, run in groupby(read.pieces, partition_of)]
        return Reading(batches, read.frame, read.rejects, read.rejected, read.pieces, left)


def _source_batch(run: list[Piece]) -> SourceBatch:
    """Pieces of one partition that follow each other."""
    columns = [places_of(piece) for piece in run]
    offsets, append_ms = (np.concatenate(column) for column in zip(*columns, strict=True))
    return SourceBatch(partition_of(run[0]), offsets, append_ms)
