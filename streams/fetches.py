"""Fetches of aiokafka's that end when their consumer does."""

import asyncio
from typing import Any


def let_fetches_end(consumer: Any) -> None:  # noqa: ANN401 - aiokafka ships no types
    """Of a started consumer: it can be stopped while a fetch waits to ask its broker again.

    aiokafka's fetcher passes over the end of a fetch that waits for an answer, and lets that of one that waits to ask
    again out of its `close`. A consumer then ends in the middle: it stays in its group, its connections are open, and
    whoever stopped it seems to be cancelled.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - no public way to a fetch
    proceed = fetcher._proc_fetch_request  # noqa: SLF001 - as above

    async def proceed_or_end(assignment: Any, node_id: int, request: Any) -> bool:  # noqa: ANN401 - as above
        try:
            return bool(await proceed(assignment, node_id, request))
        except asyncio.CancelledError:
            return False

    fetcher._proc_fetch_request = proceed_or_end  # noqa: SLF001 - as above
