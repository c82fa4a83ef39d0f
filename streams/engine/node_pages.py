"""State pages of the node table: how what is known of two million nodes survives its worker.

A page is one record of the changelog partition with the number of its heartbeats partition: key `page number/owner`,
value a header and columnar rows, one a node. A row is a pure function of its node and the last offset of it, so of
all rows of a node, in whatever page, by whichever owner and however old, the one with the greatest offset counts.
The owner is in the key because each owner lays its pages out anew: a page of one must not replace a page of another.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from streams.core.liveness.columns import PAGE_SCHEMA
from streams.engine.frames import FrameError, pack, unpack

FORMAT = 1
_LENGTH = struct.Struct(">I")


class PageFormatError(RuntimeError):
    """A page of another version of fleetbeat: to leave it out would be to forget its nodes."""


def page_key(number: int, owner: str) -> bytes:
    """The changelog key of a page."""
    return f"{number}/{owner}".encode()


def write_page(rows: pl.DataFrame, partition: int) -> bytes:
    """The value of a page with nodes of a partition of heartbeats."""
    head = json.dumps({"format": FORMAT, "partition": partition, "rows": rows.height}).encode()
    return _LENGTH.pack(len(head)) + head + pack(rows)


def read_page(value: bytes, partition: int) -> pl.DataFrame:
    """The rows of a page. Raises PageFormatError, and FrameError for what is no page of this partition."""
    try:
        (length,) = _LENGTH.unpack_from(value)
        head = json.loads(value[_LENGTH.size : _LENGTH.size + length])
        if head["format"] != FORMAT:
            raise PageFormatError(
                f"node page of format {head['format']}; expected {FORMAT}: run the fleetbeat that wrote it"
            )
        if head["partition"] != partition:
            raise FrameError(f"of partition {head['partition']}; expected {partition}")
        rows = unpack(value[_LENGTH.size + length :], PAGE_SCHEMA)
        if rows.height != head["rows"]:
            raise FrameError(f"{rows.height} rows; expected {head['rows']}")
    except (ValueError, LookupError, TypeError, RecursionError, struct.error) as cause:
        message = f"a node page of {len(value)} bytes cannot be read: {cause}"
        raise FrameError(message) from cause
    return rows


@dataclass(slots=True)
class PartitionPages:
    """What a changelog partition holds: the newest value of each key."""

    partition: int
    values: dict[bytes, bytes] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def apply(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Takes in records of the changelog in their order; a value of None is a tombstone."""
        for key, value in records:
            if value is None:
                self.values.pop(key or b"", None)
            else:
                self.values[key or b""] = value

    def rows(self) -> Iterator[pl.DataFrame]:
        """The rows of one page after the other; what cannot be read is left out, and told in `unreadable`.

        Raises PageFormatError.
        """
        for key, value in self.values.items():
            try:
                yield read_page(value, self.partition)
            except FrameError as cause:
                self.unreadable.append(f"{key[:100]!r}: {cause}")
