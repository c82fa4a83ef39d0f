"""Answers over HTTP arrive in pieces of any size, and may be anything at all."""

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.probes.base import Phase
from agents.probes.http_answer import HttpAnswer
from agents.probes.watch import ProbeFailedError, Watch

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-A: z\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nX-A: hint\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nhello",
]


def hear(pieces: list[bytes], max_bytes: int = 1_000, *, keeps_body: bool = True) -> HttpAnswer:
    """What is known after these pieces and the end of the connection; raises what the probe would see."""

    async def main() -> HttpAnswer:
        watch = Watch()
        watch.enter(Phase.FIRST_BYTE)
        answer = HttpAnswer(watch, max_bytes, is_head=False, follows=True, keeps_body=keeps_body)
        for piece in pieces:
            answer.data_received(piece)
        answer.connection_lost(None)
        await answer.heard
        await answer.lost
        return answer

    return asyncio.run(main())


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[low:high] for low, high in pairwise(edges) if low < high]


@settings(deadline=None)
@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 1_000), max_size=20))
def test_an_answer_is_the_same_however_it_is_cut(text: bytes, places: list[int]) -> None:
    answer = hear(cut(text, places))
    assert (answer.status, answer.headers["x-a"], bytes(answer.body)) == (200, "b", b"hello")


@pytest.mark.parametrize("text", ANSWERS[:3])
def test_an_answer_that_is_cut_short_is_no_answer(text: bytes) -> None:
    for length in range(len(text)):
        with pytest.raises(ProbeFailedError, match="closed"):
            hear([text[:length]])


@settings(deadline=None)
@given(st.binary(max_size=2_000), st.binary(max_size=2_000))
def test_garbage_is_refused_with_a_reason_and_never_with_an_error_of_ours(head: bytes, body: bytes) -> None:
    for garbage in (head, b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body):
        with suppress(ProbeFailedError):
            assert len(hear([garbage, body]).body) <= len(garbage) + len(body)


def test_a_body_that_nobody_looks_at_is_not_kept() -> None:
    assert hear([ANSWERS[0]], keeps_body=False).body == b""


def test_what_comes_after_the_answer_is_ignored() -> None:
    answer = hear([ANSWERS[0] + b"garbage", b"more of it", ANSWERS[1]])
    assert bytes(answer.body) == b"hello"
