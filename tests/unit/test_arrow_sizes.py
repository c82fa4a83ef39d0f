"""What a frame would take in memory is known before it is unpacked; what lies about it is refused."""

import resource
import struct
from random import Random

import numpy as np
import polars as pl
import pytest

from schemas.codec import MAX_VALUE_BYTES, encode
from schemas.records import SloPartial, Source
from streams.core.cells import CELL_ROWS
from streams.core.series import SeriesIndex
from streams.engine.arrow_sizes import unpacked_bytes
from streams.engine.frames import FrameError, pack, unpack
from streams.engine.partials import MAX_CELLS_BYTES, read_partial

SCHEMA = pl.Schema({"n": pl.Int64(), "text": pl.String()})


def zeros(rows: int) -> pl.DataFrame:
    return pl.DataFrame({name: np.zeros(rows, np.int64) for name in CELL_ROWS}).cast(CELL_ROWS)


@pytest.mark.parametrize("rows", [1, 1_000, 300_000])
def test_the_size_is_that_of_the_rows(rows: int) -> None:
    frame = zeros(rows)
    assert frame.estimated_size() <= unpacked_bytes(pack(frame)) <= frame.estimated_size() * 1.01 + 64


def test_texts_count_with_their_offsets_and_no_rows_take_next_to_nothing() -> None:
    frame = pl.DataFrame({"n": [1, 2], "text": ["a" * 1_000, "b" * 2_000]}, schema=SCHEMA)
    assert 3_000 + 16 <= unpacked_bytes(pack(frame)) < 3_200
    assert unpacked_bytes(pack(frame.clear())) <= 8
    assert unpack(pack(frame), SCHEMA).equals(frame)


def test_a_bomb_in_slo_partials_is_refused_before_it_goes_off() -> None:
    cells = pack(zeros(MAX_CELLS_BYTES // 45))
    value = encode(SloPartial("probe-results", "", (Source(0, 1, 1),), ("s",), cells))
    assert len(value) < MAX_VALUE_BYTES // 20
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError, match=rf"unpack to \d+; expected at most {MAX_CELLS_BYTES}"):
        read_partial(value, SeriesIndex())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 10_000
    assert unpack(cells, CELL_ROWS).height == MAX_CELLS_BYTES // 45  # the control: it is sound, and only too large


@pytest.mark.parametrize("claim", [8, 1 << 40, -2])
def test_a_buffer_that_lies_about_its_size_is_refused(claim: int) -> None:
    data = pack(zeros(200_000))
    true = struct.pack("<q", 200_000 * 8)
    assert true in data
    with pytest.raises(FrameError):
        unpack(data.replace(true, struct.pack("<q", claim)), CELL_ROWS)


def test_damage_of_any_kind_is_a_value_error_or_a_size() -> None:
    """Every single byte, and random ones, of a stream that has texts."""
    data = pack(pl.DataFrame({"n": [1, 2], "text": ["a", "b"]}, schema=SCHEMA))
    rng = Random(7)
    places = [(place, rng.randrange(1, 256)) for place in range(len(data)) for _ in range(3)]
    for place, bits in places:
        damaged = bytearray(data)
        damaged[place] ^= bits
        try:
            assert unpacked_bytes(bytes(damaged)) >= 0
        except ValueError:
            continue
    for cut in range(len(data)):
        try:
            unpacked_bytes(data[:cut])
        except ValueError:
            continue
