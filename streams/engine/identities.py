"""Which topics a consumer reads, apart from their names: as they were at the last seek, and whether they still are."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog
from faust.types import TP

from streams import metrics
from streams.engine.commit_notes import Note
from streams.topic_ids import UNKNOWN, TopicIdentity, TopicRecreatedError, fetch_topic_ids

# So long a topic may be away while what was polled of it is held back.
GONE_S = 5.0
ASK_AGAIN_S = 0.2

log = structlog.get_logger("fleetbeat.transport")


class Identities:
    """`ids` are replaced as a whole at each seek, by the consumer's thread."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - Faust's, with our topics
        self._app = app
        self.ids: Mapping[str, str] = {}

    async def ask(self, client: Any) -> dict[str, str]:  # noqa: ANN401 - an AIOKafkaClient
        """The ids that the topics have now. Raises KafkaError."""
        return await fetch_topic_ids(client, {*self._app.batch_topics, *self._app.outputs.values()})

    def of(self, topic: str) -> TopicIdentity:
        """What a topic was at the last seek."""
        return TopicIdentity(self.ids.get(topic, UNKNOWN), self._app.conf.topic_partitions)

    async def confirm(self, topic: str) -> None:
        """What was polled of a topic until now is of the one that was sought. Raises TopicRecreatedError.

        A topic that was there a moment ago, and has the same id now, has had it in between too.
        """
        ids = self.ids
        sought = ids.get(topic)
        if sought == UNKNOWN:
            return
        client = self._app.producer._ensure_producer().client  # noqa: SLF001 - Faust hands on no client
        found = (await fetch_topic_ids(client, [topic])).get(topic)
        until_s = time.monotonic() + GONE_S
        while found is None and self.ids is ids and time.monotonic() < until_s:  # the group meets soon
            await asyncio.sleep(ASK_AGAIN_S)
            found = (await fetch_topic_ids(client, [topic])).get(topic)
        # Without it at the seek, what was polled is of a later one; after another seek, it is not looked at any more.
        if (sought is None or found != sought) and self.ids is ids:
            raise TopicRecreatedError(topic, sought, found)

    def still_means(self, tp: TP, offset: int, note: Note, ids: Mapping[str, str]) -> bool:
        """Whether a commit is of the topics that are there now; if not that is told, and everything is read."""
        why = note.contradicts(ids.get(tp.topic, ""), ids.get(self._app.outputs.get(tp.topic, ""), ""))
        if why:
            metrics.RECREATED.labels(tp.topic).inc()
            log.error(
                "a topic was created anew: the commit is void, all that the log holds is read",
                topic=tp.topic,
                partition=tp.partition,
                commit=offset,
                why=why,
            )
        return not why

    def note(self, topic: str, text: str) -> str:
        """The metadata of a commit with a processor's own words."""
        topic_id, partitions = self.of(topic)
        return Note(text, topic_id, self.of(self._app.outputs.get(topic, "")).topic_id, partitions).write()
