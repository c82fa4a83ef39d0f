"""The records of one topic on disk: in order, each once, whatever moment the process ends at.

A record is unsent, or in flight (handed over under a stamp and not settled), or settled. The journal says which. After
the process has ended without a word, what was in flight is in doubt: it is read again, and only it, until it is settled
or given back. What is given up while something is in flight leaves a hole behind that.

Whatever the bytes on disk are, reading moves forward and ends; records that are lost are counted by their numbers.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from agents.spool.files import Files
from agents.spool.gaps import Gaps
from agents.spool.journal import Flight, Journal, Settled, Stamp
from agents.spool.layout import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, Damage, Era, Record
from agents.spool.segments import Place, Segments

JOURNAL = "journal"
_LEAST_SEGMENT_BYTES = 64 * 1024
_MOST_SEGMENT_BYTES = 1024 * 1024
# Giving up the oldest costs one segment: a sixteenth of all.
_SEGMENTS = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    record: Record
    behind: Place


class Store:
    """Not safe for threads. What reads or writes raises OSError; an append that raised is not there."""

    def __init__(
        self, folder: Path, max_bytes: int, era: Era, files: Files | None = None, segment_bytes: int | None = None
    ) -> None:
        self._files = files or Files()
        self._max_bytes = max_bytes
        most = min(max(max_bytes // _SEGMENTS, _LEAST_SEGMENT_BYTES), _MOST_SEGMENT_BYTES)
        self._segments = Segments(folder, segment_bytes or most, era, self._files)
        self._journal = Journal(folder / JOURNAL, self._files)
        self._journal_path = folder / JOURNAL
        self._next = 0
        self._settled = Place(0, 0, SEGMENT_HEADER_BYTES)
        self._cursor = self._settled
        self._taken = 0
        """Records handed over since the flight began, or about to fly."""
        self._flight: Flight | None = None
        self._doubted = False
        self._hole = (0, 0)
        self._found: _Found | None = None
        self._counted = 0
        """Losses below this number were counted."""
        self._gaps = Gaps()
        """Losses that this process has seen, at and above what is settled."""
        self.corrupt = 0
        """Records lost because their bytes on disk were damaged or gone."""
        self._unsynced: set[Path] = set()
        """The disk has failed to sync them."""

    def open(self) -> None:
        """Looks at what is there: names, the journal, and the last segment from the first unsettled record on."""
        self._segments.load()
        state = self._journal.open()
        # Where records are and no journal, nothing says which of them are settled: all of them count as unsent.
        known = state or Settled(number=self._segments.first or 0)
        self._flight, self._doubted = known.flight, known.flight is not None
        self._hole = known.hole_from, known.hole_to
        self._settled = self._cursor = self._place(known)
        end = max(known.number, known.hole_to, known.flight.end if known.flight else 0)
        self._next = max(end, self._end_of_last())
        self._counted = known.flight.end if known.flight else 0
        self._segments.remove_below(known.number)
        if not self._doubted:
            self._peel()
        if state is None:
            if self.waiting:
                log.warning(
                    "the spool's journal says nothing: all records on disk are sent, also those that Kafka has",
                    extra={"records": self.waiting, "path": str(self._journal_path)},
                )
            self._write()

    def close(self) -> None:
        """Gives descriptors back; everything is on disk already, as far as it ever will be."""
        self._segments.close()
        self._journal.close()

    @property
    def disk_bytes(self) -> int:
        """What the segments take on disk."""
        return self._segments.bytes

    @property
    def waiting(self) -> int:
        """Records that are not settled; damaged ones that nobody has come across are among them."""
        return self._next - self._settled.number - (self._hole[1] - self._hole[0])

    @property
    def unsent(self) -> int:
        """Records that are neither settled nor in flight nor in doubt."""
        if self._flight is None:
            return self.waiting
        begin = self._unsent_from().number
        return self._next - begin - self._given_up_between(begin, self._next)

    @property
    def doubt(self) -> Flight | None:
        """What may be in Kafka, and was handed over by a process that ended or over a connection that was given up."""
        return self._flight if self._doubted else None

    def fits(self, size: int) -> bool:
        """Whether a payload of that many bytes can be appended within the bound."""
        return self.disk_bytes + SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + size <= self._max_bytes

    def append(self, taken_ms: int, payload: bytes) -> None:
        """Takes a record: it outlives this process."""
        self._segments.append(Record(self._next, taken_ms, payload), is_next=not self.waiting)
        self._next += 1

    def peek(self) -> tuple[int, bytes] | None:
        """(ms of this era when it was taken, payload) of the next record to hand over; None when there is none now.

        While there is a doubt, only what is in doubt.
        """
        if self._found is None:
            corrupt = self.corrupt
            self._found = self._find()
            if self._taken == 0 and self._flight is None:  # what is lost is settled, and so is a hole behind it
                self._peel()
                self._found = self._found or self._find()
                if self.corrupt > corrupt:
                    self._settled = self._cursor
                    self._write()
        return None if self._found is None else (self._found.record.taken_ms, self._found.record.payload)

    def advance(self) -> None:
        """Hands over what `peek` showed."""
        if self._found is None:
            raise RuntimeError("nothing was shown; expected a peek before")
        self._cursor, self._found = self._found.behind, None
        self._taken += 1

    @property
    def handed_over(self) -> int:
        """How many since the last settling or rewinding."""
        return self._taken

    def fly(self, stamp: Stamp) -> None:
        """What was handed over leaves for Kafka under this stamp."""
        self._flight = Flight(stamp, self._taken, self._cursor.number)
        self._write()

    def is_whole(self) -> bool:
        """Whether what was handed over again is all that was in doubt: else its stamp means another batch."""
        return self._flight is not None and self._taken == self._flight.count

    def settle(self) -> None:
        """What was handed over is in Kafka, or given up."""
        if self._flight is not None:
            self._cursor = self._at_least(self._flight.end)
        self._flight, self._doubted, self._taken = None, False, 0
        self._peel()
        self._write()  # before files go: what is in doubt must be there
        self._segments.remove_below(self._settled.number)
        if not self.waiting:
            self._segments.forget_window()

    def give_up_doubt(self) -> None:
        """What is left of it cannot be sent as it was: it goes as if never sent, and may be in Kafka twice."""
        if self._flight is not None and self._flight.count > self._taken:
            self._lose(self._flight.count - self._taken)
        self.rewind(doubt=False)
        self._found = self._find()
        self._peel()  # what is lost and was counted is settled
        self._write()

    def rewind(self, *, doubt: bool) -> None:
        """What was handed over is read again: it is certainly not in Kafka, or, with `doubt`, it may be."""
        self._cursor, self._found, self._taken = self._settled, None, 0
        self._doubted = doubt and self._flight is not None
        if not self._doubted:
            self._flight = None

    def drop_oldest(self) -> int:
        """Gives up the unsent records of the oldest segment with any; how many. Frees it unless some of it flies."""
        segment = self._segments.at(self._unsent_from())
        if segment is None:
            return 0
        following = self._segments.after(segment)
        end = self._next if following is None else following.first
        if self._is_before_hole():  # there is room for one hole
            end = max(end, self._hole[1])
        dropped = self._give_up(Place(end, *self._start_of(end)))
        if self._flight is None or segment.first >= self._flight.end:
            self._segments.remove(segment)
        return dropped

    def expire(self, before_ms: int) -> int:
        """Gives up unsent records taken before then; how many."""
        cursor, doubted, taken = self._cursor, self._doubted, self._taken
        self._cursor, self._doubted, self._found = self._unsent_from(), False, None
        self._taken = 0
        begin = self._cursor.number
        while (found := self._find()) is not None and found.record.taken_ms < before_ms:
            self._cursor = found.behind
        end = self._cursor
        self._cursor, self._doubted, self._taken = cursor, doubted, taken
        if self._is_before_hole():
            if end.number < self._hole[0]:  # there is room for one hole: the rest waits until the batch is settled
                return 0
            end = self._segments.seek(self._hole[1])
        return self._give_up(end) if end.number > begin else 0

    def take_dirty(self) -> set[Path]:
        """What a loss of power would cost, to be synced by the caller."""
        if self._unsynced:
            self._write()
            self._unsynced = self._segments.write_again(self._unsynced - {self._journal_path})
        dirty, self._segments.dirty = self._segments.dirty, set()
        return {*dirty, self._journal_path}

    def sync(self, paths: set[Path]) -> set[Path]:
        """What `take_dirty` gave, to the disk; those that it refused. In any thread, and may block for long."""
        return self._files.sync_all(paths)

    def sync_failed(self, paths: set[Path]) -> None:
        """They are dirty again. What a kernel could not write it holds for clean: only a new write brings it back."""
        self._unsynced |= paths
        self._segments.dirty |= paths - {self._journal_path}

    @property
    def is_dirty(self) -> bool:
        """Whether records were written since `take_dirty`."""
        return bool(self._segments.dirty or self._unsynced)

    def _find(self) -> _Found | None:
        """The next record from the cursor on; counts what is lost on the way."""
        while self._cursor.number < self._reach():
            segment = self._segments.at(self._cursor)
            if segment is None:
                self._skip(Place(self._next, *self._start_of(self._next)))
                return None
            if segment.first != self._cursor.segment:  # those before it are gone
                self._skip(self._segments.start(segment, self._cursor.number))
                continue
            following = self._segments.after(segment)
            end = self._next if following is None else following.first
            seen = self._segments.look(segment, self._cursor.offset)
            if seen is None:
                self._skip(Place(max(end, self._cursor.number), *self._start_of(end, segment.first)))
                if following is None:
                    return None
                continue
            offset, what = seen
            if isinstance(what, Record) and self._cursor.number <= what.number < end:
                self._skip(Place(what.number, segment.first, self._cursor.offset))
                if what.number >= self._reach():
                    return None
                taken_ms = self._segments.taken_ms(segment, what)
                behind = Place(what.number + 1, segment.first, offset)
                return _Found(Record(what.number, taken_ms, what.payload), behind)
            number = self._cursor.number
            if isinstance(what, Damage):
                number = min(max(number, end if what.next_number is None else what.next_number), end)
            self._skip(Place(number, segment.first, offset))
        return None

    def _reach(self) -> int:
        """Up to which number may be handed over now: a hole, and what is in doubt, ends a batch."""
        if self._doubted and self._flight is not None:
            return self._flight.end
        hole_from, hole_to = self._hole
        return hole_from if self._cursor.number <= hole_from < hole_to else self._next

    def _skip(self, place: Place) -> None:
        """Moves the cursor; records on the way that were not given up are lost."""
        begin = max(self._cursor.number, self._counted)
        lost = place.number - begin - self._given_up_between(begin, place.number)
        for first, last in self._outside_hole(self._cursor.number, place.number):
            self._gaps.add(first, last)
        if lost > 0:
            self._lose(lost)
            self._counted = place.number
        self._cursor = place

    def _lose(self, records: int) -> None:
        self.corrupt += records
        log.error(
            "records in the spool are damaged", extra={"records": records, "path": str(self._journal_path.parent)}
        )

    def _unsent_from(self) -> Place:
        """Where the first record is that is neither settled nor handed over nor in doubt."""
        if self._flight is None:
            return self._cursor
        if self._is_before_hole():
            return self._at_least(self._flight.end)
        return self._at_least(max(self._flight.end, self._hole[1]))

    def _is_before_hole(self) -> bool:
        """Whether unsent records are between what flies and a hole: a longer batch flew when the hole was made."""
        return self._flight is not None and self._flight.end < self._hole[0] < self._hole[1]

    def _give_up(self, end: Place) -> int:
        """Gives up what is unsent before `end`; how many."""
        begin = self._unsent_from().number
        outside = self._outside_hole(begin, end.number)
        gone = sum(last - first - self._gaps.between(first, last) for first, last in outside)
        self._found = None
        if self._flight is None:
            self._cursor, self._taken = end, 0
            self._peel()
        else:
            self._hole = self._flight.end, end.number
            if not self._doubted:
                self._cursor = end
        self._write()
        return gone

    def _outside_hole(self, begin: int, end: int) -> tuple[tuple[int, int], ...]:
        """The numbers from `begin` to before `end` that were not given up, as ranges."""
        hole_from, hole_to = self._hole
        ranges = ((begin, min(end, max(begin, hole_from))), (min(end, max(begin, hole_to)), end))
        return tuple((first, last) for first, last in ranges if first < last)

    def _given_up_between(self, begin: int, end: int) -> int:
        return max(0, min(end, self._hole[1]) - max(begin, self._hole[0]))

    def _peel(self) -> None:
        """With nothing in flight all before the cursor is settled, and so is a hole that begins there."""
        if self._cursor.number >= self._hole[0] and self._hole[0] < self._hole[1]:
            self._cursor, self._hole, self._found = self._at_least(self._hole[1]), (0, 0), None
        self._settled = self._cursor
        self._gaps.forget_below(self._settled.number)

    def _at_least(self, number: int) -> Place:
        return self._cursor if self._cursor.number >= number else self._segments.seek(number)

    def _start_of(self, number: int, segment: int | None = None) -> tuple[int, int]:
        """(segment, offset) to go on from after the end of one: of the next segment, or of the same if it may grow."""
        place = self._segments.seek(number)
        if segment is not None and place.segment == segment:
            at = self._segments.at(place)
            return segment, place.offset if at is None else at.size
        return place.segment, place.offset

    def _place(self, state: Settled) -> Place:
        """Where the first unsettled record is: at the hint, when that is right."""
        place = self._segments.seek(state.number)
        segment = self._segments.at(place)
        if (
            segment is None
            or segment.first != state.segment
            or not SEGMENT_HEADER_BYTES <= state.offset <= segment.size
        ):
            return place
        if state.offset == segment.size or self._segments.number_at(segment, state.offset) == state.number:
            return Place(state.number, state.segment, state.offset)
        return place

    def _end_of_last(self) -> int:
        """The number behind the last record there is; goes on behind it, when its segment ends as it should."""
        place = self._segments.seek(1 << 63)
        segment = self._segments.at(place)
        if segment is None:
            return 0
        number, offset = segment.first, SEGMENT_HEADER_BYTES
        if self._settled.segment == segment.first and self._settled.offset > offset:
            number, offset = self._settled.number, self._settled.offset
        while (seen := self._segments.look(segment, offset)) is not None:
            if isinstance(seen[1], Damage) and seen[1].next_number is None:
                log.error("the spool's last record was cut off", extra={"path": str(segment.path)})
                # A number that nobody has: whoever reads past it counts one as lost. What is there stays, and
                # the next start finds the same.
                return number + 1
            offset = seen[0]
            number = max(number, seen[1].number + 1 if isinstance(seen[1], Record) else seen[1].next_number or 0)
        self._segments.go_on()
        return number

    def _write(self) -> None:
        """A journal that cannot be written must not stop the sending; a crash may then send again what is in Kafka."""
        place, hole = self._settled, self._hole
        state = Settled(place.number, place.segment, place.offset, hole[0], hole[1], self._flight)
        try:
            self._journal.write(state)
        except OSError as cause:
            log.error(  # noqa: TRY400 - the reason says it all
                "the spool's journal cannot be written", extra={"path": str(self._journal_path), "why": str(cause)}
            )
