"""Polls of heartbeats → the tables of their partitions, and dead letters for what cannot be read."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

import numpy as np
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import BlockReader
from streams import metrics
from streams.core.liveness.beats import BEAT_COLUMNS
from streams.core.liveness.table import Folded
from streams.engine.transport import require_append_time
from streams.processors.dead_letters import dead_letters
from streams.processors.node_parts import Part
from streams.processors.node_recovery import SOURCE

Records = list[ConsumerRecord[bytes, bytes]]
Letters = list[tuple[bytes | None, bytes]]


class NodeFolder:
    """Decodes polls of many partitions in one go."""

    def __init__(self) -> None:
        self._reader = BlockReader(SOURCE, BEAT_COLUMNS)
        self._letters: Letters = []

    def take_letters(self) -> Letters:
        """Dead letters since the last call; they must be written before what was folded with them is committed."""
        letters, self._letters = self._letters, []
        return letters

    def fold(self, parts: Mapping[int, Part], polls: Sequence[Records]) -> None:
        """Counts what is new in the polls, which hold each partition's records in offset order."""
        by_partition: dict[int, Records] = {}
        for poll in polls:
            if poll[0].partition in parts:  # else it was lost meanwhile, and its new owner reads these
                by_partition.setdefault(poll[0].partition, []).extend(poll)
        records = [record for one in by_partition.values() for record in one]
        require_append_time(records)
        block = self._reader.read([record.key for record in records], [record.value for record in records])
        rejects = [r for r in block.rejects if records[r.row].offset >= parts[records[r.row].partition].read_to]
        for reject in rejects:
            metrics.REJECTED.labels(SOURCE, reject.reason).inc()
        rows, beats = _placed(block.frame, records)
        end = 0
        for partition, one in by_partition.items():
            begin, end = end, end + len(one)
            first, after = np.searchsorted(rows, (begin, end)).tolist()
            _fold(parts[partition], beats[first:after], one[-1].offset)
        self._letters += dead_letters(records, rejects, "worker")


def _placed(frame: pl.DataFrame, records: Records) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], pl.DataFrame]:
    """The index into `records` of each row, and the rows with their offsets and append times."""
    rows = frame["_row"].to_numpy()
    columns = {
        name: pl.Series(np.fromiter(map(attrgetter(attribute), records), np.int64, len(records))[rows])
        for name, attribute in (("offset", "offset"), ("append_ms", "timestamp"))
    }
    return rows, frame.drop("_row").with_columns(**columns)


def _fold(part: Part, beats: pl.DataFrame, last_offset: int) -> None:
    folded = part.table.fold(beats, last_offset)
    part.read_to = max(part.read_to, last_offset + 1)
    _count(folded, "nodes.max" if part.table.nodes >= part.limits.max_nodes else "nodes.new_per_minute")


def _count(folded: Folded, bound: str) -> None:
    metrics.HEARTBEATS.inc(folded.heartbeats)
    metrics.HEARTBEATS_IGNORED.inc(folded.ignored)
    metrics.HEARTBEATS_LOST.inc(folded.lost)
    metrics.NODE_RESTARTS.inc(folded.restarts)
    metrics.NODES_REFUSED.labels(bound).inc(folded.refused)
