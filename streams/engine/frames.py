"""Frames as bytes: an Arrow IPC stream with zstd, and back."""

import io

import polars as pl

from streams.engine.arrow_sizes import unpacked_bytes

# A page holds a tenth of that; a kilobyte of zstd can hold all of it.
MAX_UNPACKED_BYTES = 256 << 20
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of an Arrow stream; polars reads a cut one up to the cut without a word


class FrameError(ValueError):
    """Bytes that are not a frame of the expected columns."""


def pack(rows: pl.DataFrame) -> bytes:
    """The rows as bytes."""
    out = io.BytesIO()
    # Of texts the oldest level writes those of the rows; the newest writes the whole buffers that they are parts of.
    rows.write_ipc_stream(out, compression="zstd", compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def unpack(data: bytes, schema: pl.Schema, limit: int = MAX_UNPACKED_BYTES) -> pl.DataFrame:
    """The rows of `pack`. Raises FrameError unless whole, with exactly the columns of `schema` and no nulls.

    What would take more than `limit` bytes is refused before it is unpacked.
    """
    if not data.endswith(_END):
        message = f"{len(data)} bytes that end with {data[-8:].hex() or 'nothing'}; expected the end of an Arrow stream"
        raise FrameError(message)
    try:
        _require_small(data, limit)
        rows = pl.read_ipc_stream(io.BytesIO(data))
    except FrameError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as cause:
        message = f"{len(data)} bytes are no Arrow stream: {cause}"
        raise FrameError(message) from cause
    if rows.schema != schema:
        message = f"columns {dict(rows.schema)}; expected {dict(schema)}"
        raise FrameError(message)
    if empty := [column.name for column in rows if column.null_count()]:
        message = f"nulls in {empty}; expected a value in every row"
        raise FrameError(message)
    return rows


def _require_small(data: bytes, limit: int) -> None:
    size = unpacked_bytes(data)
    if size > limit:
        raise FrameError(f"{len(data)} bytes unpack to {size}; expected at most {limit}")
