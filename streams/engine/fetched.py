"""What the fetcher knows of a partition: how far its log goes, and when the broker last said so."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.engine.app import App


class Heard(NamedTuple):
    """`end`: the offset after the last record; `at_ms`: this machine's clock when the broker last answered a fetch.

    Where the log ends in marks of transactions, which are no records, `end` is before them once they have been fetched.
    """

    end: int
    at_ms: int


def last_heard(app: App, tp: TP) -> Heard | None:
    """None before the first answer, and for a partition that is not, or no longer, assigned to us.

    The broker keeps a fetch waiting only while it has nothing to give, so a recent `at_ms` makes `end` good up to now.
    """
    thread = app.consumer._thread  # type: ignore[attr-defined]  # noqa: SLF001 - Faust hands on the end alone
    if thread is None or (consumer := thread._consumer) is None:  # noqa: SLF001 - as above
        return None
    kafka_tp = TopicPartition(tp.topic, tp.partition)
    try:
        at_ms = consumer.last_poll_timestamp(kafka_tp)  # before the end: that may only be newer
        end = consumer.highwater(kafka_tp)
    except (AssertionError, AttributeError):
        # aiokafka's answers: its thread may lose the partition at any time, also between its own check and look.
        return None
    if at_ms is None or end is None:
        return None
    return Heard(_records_end(thread, tp, end), at_ms)


async def ask_ends(app: App, tps: Collection[TP], timeout_s: float) -> dict[TP, int]:
    """The ends of logs (as `Heard.end`), asked of the broker now: for partitions that the fetcher has no news of.

    Raises TimeoutError, and whatever aiokafka has to say.
    """
    thread = app.consumer._thread  # type: ignore[attr-defined]  # noqa: SLF001 - Faust's own way is a queue that fetches use

    async def ask() -> Mapping[TopicPartition, int]:
        kafka = thread._ensure_consumer()  # noqa: SLF001 - as above
        async with asyncio.timeout(timeout_s):
            ends: Mapping[TopicPartition, int] = await kafka.end_offsets([TopicPartition(*tp) for tp in tps])
            return ends

    ends = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), thread.thread_loop))
    found = {TP(tp.topic, tp.partition): end for tp, end in ends.items()}
    return {tp: _records_end(thread, tp, end) for tp, end in found.items()}


def _records_end(thread: Any, tp: TP, end: int) -> int:  # noqa: ANN401 - Faust's consumer thread, with ours in it
    passed = thread.passed.get(tp)
    return passed.records_to if passed is not None and passed.position >= end else end
