"""What the fetcher knows of a partition: how far its log goes, and when the broker last said so."""

from typing import NamedTuple

from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.engine.app import App


class Heard(NamedTuple):
    """`end`: the offset after the last record; `at_ms`: this machine's clock when the broker last answered a fetch."""

    end: int
    at_ms: int


def last_heard(app: App, tp: TP) -> Heard | None:
    """None before the first answer, and for a partition that is not, or no longer, assigned to us.

    The broker keeps a fetch waiting only while it has nothing to give, so a recent `at_ms` makes `end` good up to now.
    """
    consumer = app.consumer._thread._consumer  # type: ignore[attr-defined]  # noqa: SLF001 - Faust hands on the end alone
    if consumer is None:
        return None
    kafka_tp = TopicPartition(tp.topic, tp.partition)
    try:
        at_ms = consumer.last_poll_timestamp(kafka_tp)  # before the end: that may only be newer
        end = consumer.highwater(kafka_tp)
    except AssertionError:  # aiokafka's answer; asking first would be no use, as its thread may lose the partition
        return None
    return None if at_ms is None or end is None else Heard(end, at_ms)
