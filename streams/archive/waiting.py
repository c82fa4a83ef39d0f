"""What a lane has been given and not yet stored."""

import time
from collections import deque
from collections.abc import Sequence
from math import inf

from streams.archive.blocks import Chunk, RawChunk
from streams.archive.metrics import ArchiveMetrics


class Waiting:
    """Chunks in the order in which they came. `since`: when something came to none (monotonic, s)."""

    def __init__(self, topic: str, metrics: ArchiveMetrics) -> None:
        self.records = 0
        self.bytes = 0
        self.since = 0.0
        self._topic = topic
        self._metrics = metrics
        self._chunks: deque[Chunk | RawChunk] = deque()

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, chunk: Chunk | RawChunk) -> None:
        """Behind all others."""
        if not self._chunks:
            self.since = time.monotonic()
        self._chunks.append(chunk)
        self._count(len(chunk), chunk.held_bytes)

    def take(self, most: float = inf) -> list[Chunk | RawChunk]:
        """What came first, until it is `most` records or more."""
        taken: list[Chunk | RawChunk] = []
        count = 0
        while self._chunks and count < most:
            taken.append(self._chunks.popleft())
            count += len(taken[-1])
        self._count(-count, -sum(chunk.held_bytes for chunk in taken))
        return taken

    def put_back(self, chunks: Sequence[Chunk | RawChunk]) -> None:
        """What was taken and had no room: ahead of all others."""
        self._chunks.extendleft(reversed(chunks))
        self._count(sum(map(len, chunks)), sum(chunk.held_bytes for chunk in chunks))

    def _count(self, records: int, held_bytes: int) -> None:
        self.records += records
        self.bytes += held_bytes
        self._metrics.buffered.labels(self._topic).set(self.records)
        self._metrics.buffered_bytes.labels(self._topic).set(self.bytes)
