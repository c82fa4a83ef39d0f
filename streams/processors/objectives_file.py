"""The objectives file of one worker while it runs: looked at again when it changes, or when somebody asks."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiokafka.errors import KafkaError

from schemas.documents import DocumentError
from schemas.file_signature import Signature, signature
from streams import metrics
from streams.core.objectives import Objective
from streams.engine.announcements import SetTooLargeError
from streams.processors.versions import Announced, Versions

LOOK_EVERY_S = 1.0

log = structlog.get_logger("fleetbeat.objectives")

Load = Callable[[Path], tuple[Objective, ...]]


@dataclass(frozen=True, slots=True)
class Refused:
    """The file cannot be used; the objectives of before stay. Each problem names its place in the file."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The file is good and Kafka did not take the announcement."""

    reason: str


Outcome = Announced | Refused | Failed


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """What a file held, and how it looked just before it was read."""

    path: Path
    objectives: tuple[Objective, ...]
    seen: Signature | None

    @property
    def written_ms(self) -> int:
        """When it was last written."""
        return self.seen.modified_ns // 1_000_000 if self.seen else 0


def load_file(path: Path, load: Load) -> LoadedFile:
    """Raises what `load` raises."""
    seen = signature(path)
    return LoadedFile(path, load(path), seen)


class ObjectivesFile:
    """A file that was loaded once, and whether it has changed since."""

    def __init__(self, loaded: LoadedFile, versions: Versions, load: Load) -> None:
        """`load` raises DocumentError."""
        self._path = loaded.path
        self._versions = versions
        self._load = load
        self._seen = loaded.seen
        self._loading = asyncio.Lock()

    async def watch(self) -> None:
        """For ever: load the file when it changes; what Kafka does not take is tried again."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if signature(self._path) != self._seen:
                await self.reload()

    async def reload(self) -> Outcome:
        """Load the file now, and announce what it changes."""
        async with self._loading:
            seen = signature(self._path)
            outcome = await self._reload()
            if not isinstance(outcome, Failed):
                self._seen = seen
            return outcome

    async def take(self, loaded: LoadedFile) -> Outcome:
        """Announce what another file holds, and look at that one from now on; unless it cannot be announced."""
        async with self._loading:
            outcome = await self._announce(loaded.path, loaded.objectives)
            if isinstance(outcome, Announced):
                self._path, self._seen = loaded.path, loaded.seen
            return outcome

    async def _reload(self) -> Outcome:
        try:
            objectives = await asyncio.to_thread(self._load, self._path)  # a long one takes a while
        except DocumentError as error:
            return _refused(error.problems)
        return await self._announce(self._path, objectives)

    async def _announce(self, path: Path, objectives: tuple[Objective, ...]) -> Outcome:
        try:
            announced = await self._versions.announce(objectives)
        except SetTooLargeError as error:
            return _refused((f"{path}: {error}",))
        except (KafkaError, TimeoutError) as error:
            reason = f"Kafka did not take the announcement: {error or type(error).__name__}"
            metrics.OBJECTIVES_RELOADS.labels("failed").inc()
            log.warning("objectives file not announced", reason=reason)
            return Failed(reason)
        metrics.OBJECTIVES_RELOADS.labels("announced" if announced.new else "unchanged").inc()
        return announced


def _refused(problems: tuple[str, ...]) -> Refused:
    metrics.OBJECTIVES_RELOADS.labels("refused").inc()
    metrics.OBJECTIVES_FILE_USED.set(0)
    log.error("objectives file refused, those of before stay", problems=problems)
    return Refused(problems)
