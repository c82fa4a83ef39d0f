"""The files that hold records, oldest first: which there are, how they grow, and what stands at a place."""

import errno
import logging
import os
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.spool.files import Files
from agents.spool.layout import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Era,
    Record,
    number_of,
    read_segment_header,
    record_bytes,
    scan,
    segment_header,
)

SUFFIX = ".segment"
# Its clock was unknown: never the era of now.
_UNKNOWN = b""
# Trying again later would not bring it back.
_GONE = (errno.ENOENT, errno.EIO)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Segment:
    """One file. Its records have the numbers from `first` to before the next segment's first."""

    first: int
    path: Path
    size: int
    era: Era | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Before the record `number`, which begins at `offset` of the segment `segment` (its first number) or later."""

    number: int
    segment: int
    offset: int


@dataclass(slots=True)
class _Window:
    segment: int
    begin: int
    data: bytes = field(repr=False)


class Segments:
    """Grows at its end and is deleted from its beginning; only the last segment is written to."""

    def __init__(self, folder: Path, segment_bytes: int, era: Era, files: Files) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._era = era
        self._files = files
        self._all: list[Segment] = []
        self._active = -1
        self._window: _Window | None = None
        self.bytes = 0
        self.dirty: set[Path] = set()
        """Written to since somebody took this set to sync it."""

    def __len__(self) -> int:
        return len(self._all)

    def load(self) -> None:
        """Finds the files; reads none. Raises OSError."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path.stem.isdecimal():
                segment = Segment(int(path.stem), path, path.stat().st_size)
                self._all.append(segment)
                self.bytes += segment.size

    @property
    def first(self) -> int | None:
        """The number that the oldest segment begins with."""
        return self._all[0].first if self._all else None

    def start(self, segment: Segment, number: int) -> Place:
        """Before the first record of a segment; `number` is the least that is wanted."""
        return Place(max(number, segment.first), segment.first, SEGMENT_HEADER_BYTES)

    def seek(self, number: int) -> Place:
        """A place from which `number` is found by reading on, without a look into the file."""
        at = max(0, bisect_right(self._all, number, key=lambda segment: segment.first) - 1)
        if not self._all:
            return Place(number, number, SEGMENT_HEADER_BYTES)
        return Place(number, self._all[at].first, SEGMENT_HEADER_BYTES)

    def at(self, place: Place) -> Segment | None:
        """The segment of a place, or the one behind it when that is gone; None behind the last one."""
        for segment in self._all[self._index(place.segment) :]:
            return segment
        return None

    def after(self, segment: Segment) -> Segment | None:
        """The next one."""
        at = self._index(segment.first) + 1
        return self._all[at] if at < len(self._all) else None

    def look(self, segment: Segment, offset: int) -> tuple[int, Record | Damage] | None:
        """(offset behind it, what stands there); None at the segment's end. Raises OSError.

        The rest of the segment is read at once and kept for the next look.
        """
        window = self._window
        if (
            window is None
            or window.segment != segment.first
            or not window.begin <= offset <= window.begin + len(window.data) == segment.size
        ):
            window = self._window = _Window(segment.first, offset, self._read(segment, offset))
        found = next(scan(window.data, offset - window.begin), None)
        return None if found is None else (found[0] + window.begin, found[1])

    def number_at(self, segment: Segment, offset: int) -> int | None:
        """Of the record that begins there; None when none does. Reads no more than its header. Raises OSError."""
        return number_of(self._read(segment, offset, RECORD_HEADER_BYTES))

    def taken_ms(self, segment: Segment, record: Record) -> int:
        """When the record was taken, in ms of this era; one of before the machine's start is from before 0."""
        era = self._era_of(segment)
        if era.id == self._era.id:
            return record.taken_ms
        wall_ms = era.wall_ms - era.monotonic_ms + record.taken_ms
        return min(0, wall_ms - self._era.wall_ms + self._era.monotonic_ms)

    def append(self, record: Record, *, is_next: bool = False) -> None:
        """Writes it behind all others, to a new segment when the last one is full. Raises OSError: it is not there.

        `is_next`: it is what will be looked at next, so its bytes are kept for that look.
        """
        data = record_bytes(record.number, record.taken_ms, record.payload)
        if self._active < 0 or self._all[-1].size + len(data) > self._segment_bytes:
            self._begin(record.number)
        segment = self._all[-1]
        try:
            self._files.write_all(self._active, data, segment.size)
        except OSError:
            try:
                self._files.truncate(self._active, segment.size)
            except OSError:
                self.close()  # a piece of a record stays at its end, which readers take for damage that lost nothing
            raise
        if is_next:
            self._window = _Window(segment.first, segment.size, data)
        segment.size += len(data)
        self.bytes += len(data)
        self.dirty.add(segment.path)

    def write_again(self, paths: set[Path]) -> set[Path]:
        """The same bytes over themselves, of those that are still there; where that failed."""
        failed = set()
        for segment in self._all:
            if segment.path not in paths:
                continue
            try:
                descriptor = self._files.open(segment.path)
                try:
                    self._files.write_all(descriptor, os.pread(descriptor, segment.size, 0), 0)
                finally:
                    os.close(descriptor)
            except OSError as cause:
                failed.add(segment.path)
                log.warning("a segment cannot be written again", extra={"path": str(segment.path), "why": str(cause)})
        return failed

    def go_on(self) -> None:
        """Appends to the last segment, when it is of this era. Raises OSError."""
        segment = self._all[-1]
        if segment.size >= SEGMENT_HEADER_BYTES and self._era_of(segment).id == self._era.id:
            self._active = self._files.open(segment.path)

    def remove(self, segment: Segment) -> None:
        """Deletes it. One that cannot be deleted is forgotten; the next start finds it settled and tries again."""
        if segment is self._all[-1]:
            self.close()
        del self._all[self._index(segment.first)]
        self.bytes -= segment.size
        self.dirty.discard(segment.path)
        if self._window is not None and self._window.segment == segment.first:
            self._window = None
        try:
            self._files.remove(segment.path)
        except OSError as cause:
            log.warning("a segment of the spool cannot be deleted", extra={"path": str(segment.path), "why": cause})

    def remove_below(self, number: int) -> None:
        """Deletes the segments whose records are all below `number`, but never the last one."""
        while len(self._all) > 1 and self._all[1].first <= number:
            self.remove(self._all[0])

    def forget_window(self) -> None:
        """Gives back the memory of what was read."""
        self._window = None

    def close(self) -> None:
        """Ends the last segment: the next record begins a new one."""
        if self._active >= 0:
            os.close(self._active)
            self._active = -1

    def _begin(self, first: int) -> None:
        self.close()
        path = self._folder / f"{first:020d}{SUFFIX}"
        header = segment_header(first, self._era)
        again = bool(self._all) and self._all[-1].first == first  # the one before got a header and no record
        descriptor = self._files.create(path)
        try:
            self._files.write_all(descriptor, header, 0)
        except OSError:
            os.close(descriptor)
            if not again:  # else its name still tells the next start how many records there were
                with suppress(OSError):
                    self._files.remove(path)
            raise
        if again:
            self.bytes -= self._all.pop().size
        self._active = descriptor
        self._all.append(Segment(first, path, len(header), self._era))
        self.bytes += len(header)
        self.dirty |= {path, self._folder}

    def _index(self, first: int) -> int:
        """Of the segment that begins with `first`, or of the next one."""
        at = bisect_right(self._all, first, key=lambda segment: segment.first)
        return at - 1 if at and self._all[at - 1].first == first else at

    def _era_of(self, segment: Segment) -> Era:
        if segment.era is None:
            header = read_segment_header(self._read(segment, 0, SEGMENT_HEADER_BYTES))
            if header is not None and header[0] == segment.first:
                segment.era = header[1]
            else:
                log.warning("a segment of the spool has a damaged header", extra={"path": str(segment.path)})
                segment.era = Era(_UNKNOWN, self._era.wall_ms, 0)
        return segment.era

    def _read(self, segment: Segment, offset: int, most: int | None = None) -> bytes:
        """To the segment's end, as far as the file goes and the disk gives it. Raises OSError when it may be there."""
        size = max(0, segment.size - offset)
        try:
            with segment.path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), size if most is None else min(size, most), offset)
        except OSError as cause:
            if cause.errno not in _GONE:
                raise
            log.error(  # noqa: TRY400 - the reason says it all
                "a segment of the spool cannot be read", extra={"path": str(segment.path), "why": str(cause)}
            )
            return b""
