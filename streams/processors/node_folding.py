"""Polls of heartbeats → the tables of their partitions, and dead letters for what cannot be read."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from streams import metrics
from streams.core.liveness.beats import BEAT_COLUMNS
from streams.core.liveness.table import Folded
from streams.engine.transport import Poll, RawPoll
from streams.processors.dead_letters import Letters
from streams.processors.node_parts import Part
from streams.processors.node_recovery import SOURCE
from streams.processors.signature_gate import SignatureGate, Signatures
from streams.processors.source_reading import Reading, SourceReader, fresh_letters

LETTER_BYTES = 64 << 20


class NodeFolder:
    """Decodes polls of many partitions in one go."""

    def __init__(self, signatures: Signatures | None = None) -> None:
        self._gate = None if signatures is None else SignatureGate(SOURCE, signatures)
        self._reader = SourceReader(SOURCE, BEAT_COLUMNS, signatures=signatures is not None)
        self._letters: Letters = []

    def take_letters(self) -> Letters:
        """Dead letters since the last call; they must be written before what was folded with them is committed."""
        letters, self._letters = self._letters, []
        return letters

    @property
    def is_full(self) -> bool:
        """So many bytes of letters wait that they have to be taken before more is folded."""
        return sum(len(value) for _, _, value in self._letters) > LETTER_BYTES

    def fold(self, parts: Mapping[int, Part], polls: Sequence[Poll | RawPoll]) -> list[Poll | RawPoll]:
        """Counts what is new in the polls, which hold each partition's records in offset order.

        Returns what there was no room for, which is to be folded next.
        """
        # What was lost meanwhile is read by its new owner.
        known = sorted((poll for poll in polls if poll.partition in parts), key=lambda poll: poll.partition)
        reading = self._reader.read(known)
        if self._gate is not None:
            reading = self._gate.check(reading)
        begins = {number: part.read_to for number, part in parts.items()}
        self._letters += fresh_letters(SOURCE, reading, begins)
        again: list[int] = []
        end, rows = 0, reading.frame["_row"].to_numpy()
        beats = _placed(reading, rows)
        for batch in reading.batches:
            begin, end = end, end + len(batch.offsets)
            first, after = np.searchsorted(rows, (begin, end)).tolist()
            ignored = _fold(parts[batch.partition], beats[first:after], int(batch.offsets[-1]))
            if ignored and self._gate is not None:
                again += (begin + np.searchsorted(batch.offsets, ignored)).tolist()
        if again and self._gate is not None:
            self._letters += fresh_letters(SOURCE, self._gate.again(reading, again), begins)
        return reading.left


def _placed(reading: Reading, rows: npt.NDArray[np.uint32]) -> pl.DataFrame:
    """The good rows with their offsets and append times; `rows`: where they are among all records."""
    columns = {
        name: np.concatenate([np.zeros(0, np.int64), *(getattr(batch, array) for batch in reading.batches)])[rows]
        for name, array in (("offset", "offsets"), ("append_ms", "append_ms"))
    }
    return reading.frame.drop("_row").with_columns(**{name: pl.Series(column) for name, column in columns.items()})


def _fold(part: Part, beats: pl.DataFrame, last_offset: int) -> Sequence[int]:
    """The offsets of those that were not newer than one of the same node."""
    folded = part.table.fold(beats, last_offset)
    part.read_to = max(part.read_to, last_offset + 1)
    _count(folded, "nodes.max" if part.table.nodes >= part.limits.max_nodes else "nodes.new_per_minute")
    return folded.ignored_at


def _count(folded: Folded, bound: str) -> None:
    metrics.HEARTBEATS.inc(folded.heartbeats)
    metrics.HEARTBEATS_IGNORED.inc(folded.ignored)
    metrics.HEARTBEATS_LOST.inc(folded.lost)
    metrics.NODE_RESTARTS.inc(folded.restarts)
    metrics.NODES_REFUSED.labels(bound).inc(folded.refused)
