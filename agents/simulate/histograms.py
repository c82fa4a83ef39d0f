"""What request counts say about their requests: good, sum, maximum, and a histogram in the contract's buckets."""

from dataclasses import dataclass

import numpy as np

from agents.simulate.pieces import Lengths, Piece, constant, join, long, longs, total_size
from agents.simulate.rows import Flags, Ints, Rows
from schemas.buckets import BOUNDS_US, BUCKETS

_BOUNDS = np.array(BOUNDS_US)
_END = constant(long(0))


@dataclass(frozen=True, slots=True)
class Tally:
    """Of each row of COUNT; without latencies sum and maximum are 0. `histogram` is an Avro array."""

    good: Ints
    sum_us: Ints
    max_us: Ints
    histogram: list[Piece]


def tally(rows: Rows, requests: Rows) -> Tally:
    """The rows in any order; their `first` are places in `requests`."""
    total = rows["total"].astype(np.int64)
    owner = np.repeat(np.arange(len(rows)), total)
    before = rows["first"].astype(np.int64) - (np.cumsum(total) - total)
    mine = requests[np.repeat(before, total) + np.arange(len(owner))]
    good = np.bincount(owner[mine["success"]], minlength=len(rows))
    measured: Flags = rows["measured"][owner]
    owner, mine = owner[measured], mine[measured]
    latency_us = mine["latency_us"].astype(np.int64)
    sum_us, max_us = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    np.add.at(sum_us, owner, latency_us)
    np.maximum.at(max_us, owner, latency_us)
    return Tally(good, sum_us, max_us, _histogram(owner, latency_us, mine["success"], len(rows)))


def _histogram(owner: Ints, latency_us: Ints, success: Flags, records: int) -> list[Piece]:
    if not len(owner):
        return [_END]
    cells, place = np.unique(owner * BUCKETS + np.searchsorted(_BOUNDS, latency_us), return_inverse=True)
    of, bucket = np.divmod(cells, BUCKETS)
    counts = np.bincount(place), np.bincount(place[success], minlength=len(cells))
    item = [longs(bucket), *map(longs, counts)]
    sizes = np.broadcast_to(total_size(item), len(cells))
    widths: Lengths = np.bincount(of, weights=sizes, minlength=records).astype(np.uint16)
    # Of a few widths only: what `join` keeps for each is as large as its square.
    width = 1 << int(widths.max() - 1).bit_length()
    there = np.arange(width) < widths[:, None]
    items = np.zeros((records, width), np.uint8)
    items[there] = join(item, len(cells))
    # An array is its number of items, the items, and a 0; one without items is the 0 alone.
    number = longs(np.bincount(of, minlength=records))
    lengths = np.full(records, number.width, np.uint16) if number.lengths is None else number.lengths
    return [Piece(number.cells, lengths * (widths > 0)), Piece(items, widths), _END]
