"""Frames as bytes: an Arrow IPC stream with zstd, and back."""

import io

import polars as pl


class FrameError(ValueError):
    """Bytes that are not a frame of the expected columns."""


def pack(rows: pl.DataFrame) -> bytes:
    """The rows as bytes."""
    out = io.BytesIO()
    rows.write_ipc_stream(out, compression="zstd")
    return out.getvalue()


def unpack(data: bytes, schema: pl.Schema) -> pl.DataFrame:
    """The rows of `pack`. Raises FrameError unless they have exactly the columns of `schema`."""
    try:
        rows = pl.read_ipc_stream(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as cause:
        message = f"{len(data)} bytes are no Arrow stream: {cause}"
        raise FrameError(message) from cause
    if rows.schema != schema:
        message = f"columns {dict(rows.schema)}; expected {dict(schema)}"
        raise FrameError(message)
    return rows
