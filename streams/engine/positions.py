"""Commits whose metadata is a text of the processor's own: `TextPoint`, where `ResumePoint` has a number only."""

from dataclasses import dataclass
from typing import cast

from faust.types import TP

from streams.engine.commit_notes import Note
from streams.engine.transport import Consumer, TextPoint


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group has committed for a partition: where to read on, the text beside it, and of which topic it is."""

    offset: int
    text: str
    topic_id: str = ""


def move(consumer: Consumer, tp: TP, offset: int, text: str) -> None:
    """From the next commit on a restart reads from `offset` and is given `text`."""
    consumer.resume_points[tp] = TextPoint(offset, text)


async def fetch_committed(consumer: Consumer) -> dict[TP, Committed]:
    """For every assigned partition that has a commit, asked now."""
    thread = consumer._thread  # noqa: SLF001 - Faust's consumer lives in its own thread

    async def ask() -> dict[TP, Committed]:
        kafka = thread._ensure_consumer()  # noqa: SLF001 - as above
        found = await kafka._coordinator.fetch_committed_offsets(list(kafka.assignment()))  # noqa: SLF001 - no public way to metadata
        return {
            TP(tp.topic, tp.partition): Committed(meta.offset, note.text, note.topic)
            for tp, meta in found.items()
            if meta.offset >= 0
            for note in [Note.read(meta.metadata)]
        }

    return cast("dict[TP, Committed]", await thread.call_thread(ask))
