"""A lane on disk: whole policies over a store, and what happens while the disk takes nothing.

Then records wait in memory, `memory_records` at most, and are written to disk, in order, as soon as it takes some: a
host whose disk is full must still be able to say so.
"""

import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.lane import Waiting
from agents.publish import Drop, LaneFigures
from agents.spool.journal import Flight, Stamp
from agents.spool.layout import MAX_PAYLOAD_BYTES
from agents.spool.store import Store

# A record that waited for room is at most this long: 32 labels, and names of 255 bytes.
ROOM_BYTES = 16 * 1024
DISK_AGAIN_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Of one topic's spool. `fsync_after_s`: what waits for that long is brought through a loss of power."""

    max_bytes: int
    max_age_s: float
    when_full: Literal["drop_oldest", "drop_newest", "block"]
    fsync_after_s: float
    memory_records: int


class SpoolLane:
    """A Lane (agents.lane). Its store is open."""

    def __init__(self, store: Store, limits: SpoolLimits, rng: random.Random) -> None:
        self._store = store
        self._limits = limits
        self._rng = rng
        self._head: list[Waiting] = []
        """Handed over from memory, or to be before what is on disk."""
        self._tail: deque[Waiting] = deque()
        """Behind what is on disk, which did not take them."""
        self._from_head = 0
        self._flown = 0
        self._head_doubt: Flight | None = None
        self._disk_tried_s = 0.0
        self._acknowledged = 0
        self._sent_again = 0
        self._dropped: Counter[Drop] = Counter()
        self._oldest_ms: int | None = None
        self._next_sync_s = 0.0
        self._look_at_oldest()

    def __len__(self) -> int:
        return self._store.waiting + len(self._head) + len(self._tail)

    @property
    def waiting(self) -> int:
        """See Lane."""
        if self.doubt is not None:
            return 1
        return len(self._head) - self._from_head + self._store.unsent + len(self._tail)

    @property
    def doubt(self) -> Flight | None:
        """See Lane."""
        return self._head_doubt or self._store.doubt

    def oldest_s(self) -> float | None:
        """See Lane."""
        if self._oldest_ms is not None and self._store.waiting:
            return self._oldest_ms / 1_000
        memory = self._head or self._tail
        return memory[0].taken_s if memory else None

    def has_room(self) -> bool:
        """See Lane."""
        return self._limits.when_full != "block" or self._store.fits(ROOM_BYTES)

    def offer(self, value: bytes, now_s: float) -> Drop | None:
        """See Lane."""
        if len(value) > MAX_PAYLOAD_BYTES:
            return self._drop(Drop.REFUSED)
        if self._tail:
            self._flush(now_s)
        if self._tail:
            return self._keep(value, now_s)
        if not self._make_room(len(value)):
            return self._drop(Drop.BUFFER_FULL)
        try:
            self._write(now_s, value)
        except OSError as cause:
            log.error(  # noqa: TRY400 - the reason says it all
                "the disk takes no records: they wait in memory", extra={"why": str(cause)}
            )
            self._disk_tried_s = now_s
            return self._keep(value, now_s)
        return None

    def expire(self, now_s: float) -> None:
        """See Lane."""
        self._flush(now_s)
        before_s = now_s - self._limits.max_age_s
        while self._tail and self._tail[0].taken_s < before_s:
            self._tail.popleft()
            self._dropped[Drop.EXPIRED] += 1
        oldest_s = self.oldest_s()
        if oldest_s is not None and oldest_s < before_s and self._store.unsent:
            try:
                self._dropped[Drop.EXPIRED] += self._store.expire(round(before_s * 1_000))
            except OSError as cause:
                log.warning("the spool cannot be read", extra={"why": str(cause)})
            if self._store.doubt is None and not self._flown:
                self._look_at_oldest()

    def hand_over(self, accepts: Callable[[bytes], bool]) -> None:
        """See Lane."""
        if not self._head and self._store.doubt is None and not self._store.unsent:
            # No more than leaves now: the rest goes to disk as soon as it takes some.
            while self._tail and accepts(self._tail[0].value):
                self._head.append(self._tail.popleft())
            self._from_head = len(self._head)
        elif self._head:
            most = self._head_doubt.count if self._head_doubt else len(self._head)
            while self._from_head < most and accepts(self._head[self._from_head].value):
                self._from_head += 1
        if self._head:
            return
        try:
            while (seen := self._store.peek()) is not None and accepts(seen[1]):
                self._store.advance()
        except OSError as cause:  # too many open files, for example: what was read so far goes
            log.warning("the spool cannot be read", extra={"why": str(cause)})

    def fly(self, stamp: Stamp) -> bool:
        """See Lane. For what is in doubt, the stamp has to be its own."""
        self._flown = self._from_head or self._store.handed_over
        if self._from_head:
            self._head_doubt = Flight(stamp, self._from_head, 0)
        elif self._store.doubt is None:
            self._store.fly(stamp)
        elif not self._store.is_whole():
            log.error("a batch in doubt is damaged: what is left of it may be in Kafka twice")
            self._sent_again += self._flown
            self._store.give_up_doubt()
            self._flown = 0
            return False
        return True

    def take_back(self) -> None:
        """See Lane."""
        if self._from_head:
            self._from_head, self._head_doubt = 0, None
        else:
            self._store.rewind(doubt=False)
        self._flown = 0

    def acknowledge(self) -> None:
        """See Lane."""
        self._acknowledged += self._flown
        self._settle()

    def refuse(self) -> None:
        """See Lane."""
        self._dropped[Drop.REFUSED] += self._flown
        self._settle()

    def lose_sight(self) -> None:
        """It is sent again under the same stamp, so that Kafka writes it once."""
        if self._from_head:
            self._from_head = 0
        else:
            self._store.rewind(doubt=True)
        self._flown = 0

    def give_up(self) -> int:
        """What is on disk is sent after the next start."""
        self._disk_tried_s = -DISK_AGAIN_S
        self._flush(0.0)
        left = len(self._head) + len(self._tail)
        self._dropped[Drop.STOPPED] += left
        self._head, self._tail, self._from_head, self._head_doubt = [], deque(), 0, None
        if self._store.waiting:
            log.info("records stay in the spool", extra={"records": self._store.waiting})
        return left

    def unsynced(self, now_s: float) -> set[Path]:
        """See Lane. None as long as Kafka takes what comes: no record waits for so long."""
        after_s = self._limits.fsync_after_s
        oldest_s = self.oldest_s()
        if oldest_s is None or oldest_s > now_s - after_s or now_s < self._next_sync_s or not self._store.is_dirty:
            return set()
        # Hosts that lost Kafka at the same moment shall not sync at the same moment.
        self._next_sync_s = now_s + after_s * self._rng.uniform(0.5, 1)
        return self._store.take_dirty()

    def sync(self, paths: set[Path]) -> set[Path]:
        """See Lane."""
        return self._store.sync(paths)

    def sync_failed(self, paths: set[Path]) -> None:
        """See Lane."""
        self._store.sync_failed(paths)

    def close(self) -> None:
        """See Lane."""
        self._store.close()

    def figures(self) -> LaneFigures:
        """See Lane."""
        dropped = dict(self._dropped)
        if self._store.corrupt:
            dropped[Drop.CORRUPT] = self._store.corrupt
        memory = len(self._head) + len(self._tail)
        return LaneFigures(
            acknowledged=self._acknowledged,
            waiting=len(self),
            dropped=dropped,
            disk_bytes=self._store.disk_bytes,
            oldest_s=self.oldest_s(),
            in_memory=memory,
            sent_again=self._sent_again,
            has_spool=True,
        )

    def _settle(self) -> None:
        if self._from_head:
            del self._head[: self._from_head]
            self._from_head, self._head_doubt = 0, None
        else:
            self._store.settle()
            self._look_at_oldest()
        self._flown = 0

    def _look_at_oldest(self) -> None:
        """Of the store, with nothing in flight or what is in doubt to be handed over next."""
        try:
            seen = self._store.peek()
        except OSError:
            return
        self._oldest_ms = None if seen is None else seen[0]

    def _make_room(self, size: int) -> bool:
        while not self._store.fits(size):
            if self._limits.when_full != "drop_oldest":
                return False
            before = self._store.disk_bytes
            dropped = self._store.drop_oldest()
            self._dropped[Drop.EVICTED] += dropped
            if not dropped and self._store.disk_bytes == before:
                return False
            if not self._flown and self._store.doubt is None:
                self._look_at_oldest()
        return True

    def _write(self, taken_s: float, value: bytes) -> None:
        empty = not self._store.waiting
        self._store.append(max(0, round(taken_s * 1_000)), value)
        if empty:
            self._oldest_ms = round(taken_s * 1_000)

    def _keep(self, value: bytes, now_s: float) -> Drop | None:
        if len(self._head) + len(self._tail) >= self._limits.memory_records:
            return self._drop(Drop.DISK_FAILED)
        self._tail.append(Waiting(now_s, value))
        return None

    def _flush(self, now_s: float) -> None:
        """Brings what waits in memory to disk, when it is time to try again."""
        if not self._tail or now_s < self._disk_tried_s + DISK_AGAIN_S:
            return
        self._disk_tried_s = now_s
        while self._tail and self._make_room(len(self._tail[0].value)):
            try:
                self._write(self._tail[0].taken_s, self._tail[0].value)
            except OSError:
                return
            self._tail.popleft()
        if not self._tail:
            log.info("the disk takes records again")

    def _drop(self, reason: Drop) -> Drop:
        self._dropped[reason] += 1
        return reason
