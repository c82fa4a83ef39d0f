"""State pages of the node table: how what is known of two million nodes survives its worker.

A page is one record of the changelog partition with the number of its heartbeats partition: key `page number/owner`,
value a header and columnar rows, one a node. A row is a pure function of its node and the last offset of it, so of
all rows of a node, in whatever page, by whichever owner and however old, the one with the greatest offset counts.
The owner is in the key because each owner lays its pages out anew: a page of one must not replace a page of another.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.liveness.pages import NEVER
from streams.engine.frames import FrameError, pack, unpack
from streams.engine.page_heads import NODES_FORMAT, Origin, read_head, write_head


def page_key(number: int, owner: str) -> bytes:
    """The changelog key of a page."""
    return f"{number}/{owner}".encode()


def write_page(rows: pl.DataFrame, partition: int, origin: Origin) -> bytes:
    """The value of a page with nodes of a partition of heartbeats; `origin`: of the topic that offsets refer to."""
    return write_head({"partition": partition, "rows": rows.height, **origin.header}, NODES_FORMAT) + pack(rows)


def read_page(value: bytes, partition: int) -> tuple[Origin, pl.DataFrame]:
    """The rows of a page. Raises PageFormatError for a newer format, FrameError for no page of this partition."""
    try:
        head, body = read_head(value, "a node page", NODES_FORMAT)
        if head["partition"] != partition:
            raise FrameError(f"of partition {head['partition']}; expected {partition}")
        rows = unpack(body, PAGE_SCHEMA)
        if rows.height != head["rows"]:
            raise FrameError(f"{rows.height} rows; expected {head['rows']}")
        return Origin.of(head), rows
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as cause:
        message = f"a node page of {len(value)} bytes cannot be read: {cause}"
        raise FrameError(message) from cause


def read_origin(value: bytes) -> Origin:
    """Of which log a page is, without its rows; of nothing that can be told when it cannot be read.

    Raises PageFormatError.
    """
    try:
        return Origin.of(read_head(value, "a node page", NODES_FORMAT)[0])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error):
        return Origin()


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

    def origins(self) -> list[Origin]:
        """Of which logs the pages are. Raises PageFormatError."""
        return [read_origin(value) for value in self.values.values()]

    def rows(self, now: Origin) -> Iterator[pl.DataFrame]:
        """The rows of one page after the other; what cannot be read is left out, and told in `unreadable`.

        Nodes that an earlier log than `now` spoke of are kept, as if from before the beginning of this one; of two such
        rows the one of the later log counts. Raises PageFormatError.
        """
        for key, value in self.values.items():
            try:
                origin, rows = read_page(value, self.partition)
            except FrameError as cause:
                self.unreadable.append(f"{key[:100]!r}: {cause}")
                continue
            age = now.generation - origin.generation
            if age > 0:
                rows = rows.with_columns(
                    first_offset=pl.lit(NEVER, pl.Int64), last_offset=pl.lit(NEVER - age, pl.Int64)
                )
            yield rows
