"""Commits whose metadata is a text of the processor's own, where `ResumePoint` knows a number only."""

from dataclasses import dataclass
from typing import cast

from faust.types import TP

from streams.engine.transport import Consumer, ResumePoint


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group has committed for a partition: where to read on, and the text beside it."""

    offset: int
    text: str


def move(consumer: Consumer, tp: TP, offset: int, text: str) -> None:
    """From the next commit on a restart reads from `offset` and is given `text`."""
    consumer.resume_points[tp] = ResumePoint(offset, cast("int", text))  # written by str(), whatever it is


async def fetch_committed(consumer: Consumer) -> dict[TP, Committed]:
    """For every assigned partition that has a commit, asked now."""
    thread = consumer._thread  # noqa: SLF001 - Faust's consumer lives in its own thread

    async def ask() -> dict[TP, Committed]:
        kafka = thread._ensure_consumer()  # noqa: SLF001 - as above
        found = await kafka._coordinator.fetch_committed_offsets(list(kafka.assignment()))  # noqa: SLF001 - no public way to metadata
        return {
            TP(tp.topic, tp.partition): Committed(meta.offset, meta.metadata)
            for tp, meta in found.items()
            if meta.offset >= 0
        }

    return cast("dict[TP, Committed]", await thread.call_thread(ask))
