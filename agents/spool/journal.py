"""How far a spool's records are settled, and what is on its way to Kafka: two slots of one file, written in turn.

Each write goes over the older slot and is checked by a checksum, so a write that was cut off leaves the one before. The
file has its final size from the start: a full disk does not keep it from being written.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from agents.spool.files import Files
from agents.spool.layout import checksum

# A disk writes a sector as a whole or not at all.
_SLOT_BYTES = 512
_MAGIC = b"fbjrnl01"
_STATE = struct.Struct(">8sQQQQQQQqhiiI?")
_CHECK = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What Kafka knows a batch by: sent again under the same stamp and as long, it is written once at most."""

    producer_id: int
    epoch: int
    partition: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch that may be in Kafka: `count` records, all of those from where the spool begins to before `end`."""

    stamp: Stamp
    count: int
    end: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Every record below `number` is in Kafka or was given up; so is each from `hole_from` to before `hole_to`.

    `segment` and `offset` say where record `number` was, or was to be: a hint that spares a search.
    """

    number: int = 0
    segment: int = 0
    offset: int = 0
    hole_from: int = 0
    hole_to: int = 0
    flight: Flight | None = None


class Journal:
    """The file. `open` before anything else."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files
        self._descriptor = -1
        self._written = 0

    def open(self) -> Settled | None:
        """What was written last; None when there is nothing that can be read. Raises OSError."""
        if not self._path.exists():
            # Under another name until it has its size: a disk that fills up just now must not leave half of one.
            begun = self._path.with_suffix(".new")
            self._descriptor = self._files.create(begun)
            self._files.write_all(self._descriptor, bytes(2 * _SLOT_BYTES), 0)
            begun.rename(self._path)
        else:
            self._descriptor = self._files.open(self._path)
        newest: Settled | None = None
        for place in range(2):
            slot = _read(os.pread(self._descriptor, _SLOT_BYTES, place * _SLOT_BYTES))
            if slot is not None and slot[0] >= self._written:
                self._written, newest = slot
        return newest

    def write(self, state: Settled) -> None:
        """Raises OSError."""
        number = self._written + 1
        self._files.write_all(self._descriptor, _pack(number, state), number % 2 * _SLOT_BYTES)
        self._written = number  # only now: after a failure the sound slot must not be the next one to be written

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _pack(written: int, state: Settled) -> bytes:
    flight = state.flight or Flight(Stamp(-1, -1, -1, -1), 0, 0)
    stamp = flight.stamp
    body = _STATE.pack(
        _MAGIC,
        written,
        state.number,
        state.segment,
        state.offset,
        state.hole_from,
        state.hole_to,
        flight.end,
        stamp.producer_id,
        stamp.epoch,
        stamp.partition,
        stamp.sequence,
        flight.count,
        state.flight is not None,
    )
    return body + _CHECK.pack(checksum(body))


def _read(slot: bytes) -> tuple[int, Settled] | None:
    if len(slot) < _STATE.size + _CHECK.size:
        return None
    body = slot[: _STATE.size]
    if not body.startswith(_MAGIC) or _CHECK.unpack_from(slot, _STATE.size)[0] != checksum(body):
        return None
    _, written, number, segment, offset, hole_from, hole_to, end, *stamp, count, flies = _STATE.unpack(body)
    flight = Flight(Stamp(*stamp), count, end) if flies else None
    return written, Settled(number, segment, offset, hole_from, hole_to, flight)
