"""Batches are unpacked as aiokafka does it, and never further than a batch of ours can go."""

import threading

import cramjam
import psutil
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.unpacking import MAX_UNPACKED_BYTES, UnpackingError, unpack

PACKED = {
    "none": (0, bytes),
    "gzip": (1, gzip_encode),
    "snappy of Java": (2, snappy_encode),
    "snappy": (2, lambda data: bytes(snappy_encode(data, xerial_compatible=False))),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
CASES = pytest.mark.parametrize("kind", PACKED)


@CASES
@settings(deadline=None, max_examples=20)
@given(data=st.binary(min_size=1, max_size=200), times=st.integers(1, 2_000))
def test_what_was_packed_comes_out_again(kind: str, data: bytes, times: int) -> None:
    codec, pack = PACKED[kind]
    assert unpack(codec, pack(data * times)) == data * times


@pytest.mark.parametrize("kind", ["gzip", "lz4", "zstd"])
def test_several_frames_are_one_batch(kind: str) -> None:
    codec, pack = PACKED[kind]
    assert unpack(codec, pack(b"a") * 3) == b"aaa"


@CASES
def test_the_largest_batch_is_taken_and_one_byte_more_is_not(kind: str) -> None:
    codec, pack = PACKED[kind]
    assert unpack(codec, pack(b"\0" * MAX_UNPACKED_BYTES)) == b"\0" * MAX_UNPACKED_BYTES
    with pytest.raises(UnpackingError, match=f"^more than {MAX_UNPACKED_BYTES} bytes unpacked$"):
        unpack(codec, pack(b"\0" * (MAX_UNPACKED_BYTES + 1)))


def test_a_gigabyte_in_a_few_kilobytes_takes_no_memory() -> None:
    compressor = cramjam.zstd.Compressor()
    for _ in range(64):
        compressor.compress(b"\0" * (16 << 20))
    bomb = bytes(compressor.finish())
    assert len(bomb) < 64 << 10
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnpackingError, match="more than"):
        unpack(4, bomb)
    assert psutil.Process().memory_info().rss - before < 2 * MAX_UNPACKED_BYTES


def test_room_that_a_snappy_block_only_claims_is_not_made() -> None:
    with pytest.raises(UnpackingError, match="more than"):
        unpack(2, b"\xff\xff\xff\xff\x0fabc")


@CASES
@settings(deadline=None, max_examples=40)
@given(junk=st.binary(max_size=60), cut=st.integers(0, 60))
def test_junk_and_what_was_cut_are_refused_or_unpacked(kind: str, junk: bytes, cut: int) -> None:
    codec, pack = PACKED[kind]
    for broken in (junk, pack(b"some of it " * 9)[:cut] + junk):
        try:
            unpack(codec, broken)
        except UnpackingError as error:
            assert str(error)  # noqa: PT017 - anything but this error is what must not be


@pytest.mark.parametrize("codec", [5, 7])
def test_a_codec_that_does_not_exist_is_named(codec: int) -> None:
    with pytest.raises(UnpackingError, match=f"^codec {codec}; expected one of 0 to 4$"):
        unpack(codec, b"")


def test_threads_do_not_share_a_place() -> None:
    texts = [bytes([65 + number]) * 100_000 for number in range(4)]
    wrong: list[int] = []

    def work(number: int) -> None:
        packed = lz4_encode(texts[number])
        wrong.extend(number for _ in range(200) if unpack(3, packed) != texts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
