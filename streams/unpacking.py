"""The records of a batch, unpacked, and never more of them than a batch of ours can have.

A broker bounds batches as they are packed. Packed well, a few kilobytes are gigabytes, and whoever unpacked them would
end, and end again after each restart. So everything is unpacked into a place of a fixed size.
"""

import mmap
import struct
import threading
from collections.abc import Callable, Iterator

import cramjam

MAX_UNPACKED_BYTES = 32 << 20
"""Clients fill batches by their size before packing: usually 16 KiB, seldom more than 1 MiB."""

_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16
_LENGTH = struct.Struct(">i")
_FULL = "failed to write whole buffer"
_here = threading.local()


class UnpackingError(ValueError):
    """The bytes are not what the codec makes, or more than MAX_UNPACKED_BYTES of them."""


def unpack(codec: int, packed: bytes) -> bytes:
    """The records by Kafka's number of the codec. Raises UnpackingError."""
    if codec == 0:
        if len(packed) > MAX_UNPACKED_BYTES:
            raise _too_large()
        return packed
    into = _CODECS.get(codec)
    if into is None:
        raise UnpackingError(f"codec {codec}; expected one of 0 to {max(_CODECS)}")
    place = _place()
    try:
        return place[: into(packed, place)]
    except (cramjam.DecompressionError, struct.error) as cause:
        raise (_too_large() if _FULL in str(cause) else UnpackingError(f"cannot be unpacked: {cause}")) from cause


def _place() -> mmap.mmap:
    """Of this thread. Only what was written to once takes memory."""
    place: mmap.mmap | None = getattr(_here, "place", None)
    if place is None:
        place = _here.place = mmap.mmap(-1, MAX_UNPACKED_BYTES)
    return place


def _snappy(packed: bytes, place: mmap.mmap) -> int:
    filled = 0
    with memoryview(place) as whole:
        for block in _snappy_blocks(packed):
            # Asked first: what a block says of itself is taken for room that it needs.
            if filled + cramjam.snappy.decompress_raw_len(block) > MAX_UNPACKED_BYTES:
                raise _too_large()
            filled += cramjam.snappy.decompress_raw_into(block, whole[filled:])
    return filled


def _snappy_blocks(packed: bytes) -> Iterator[bytes]:
    """Java's clients write several blocks, each behind its length; others write one and nothing else."""
    if not packed.startswith(_XERIAL):
        yield packed
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size
        if not 0 <= length <= len(packed) - at:
            raise UnpackingError(f"a block of {length} bytes; expected at most {len(packed) - at}")
        yield packed[at : at + length]
        at += length


def _too_large() -> UnpackingError:
    return UnpackingError(f"more than {MAX_UNPACKED_BYTES} bytes unpacked")


_CODECS: dict[int, Callable[[bytes, mmap.mmap], int]] = {
    1: cramjam.gzip.decompress_into,
    2: _snappy,
    3: cramjam.lz4.decompress_into,
    4: cramjam.zstd.decompress_into,
}
