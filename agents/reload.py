"""The agent's file while the agent runs: read again when it changes or somebody asks, and applied as a whole or not."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agents.changes import Change, needs_restart
from agents.clock import Clock
from agents.config import AgentConfig, build_agent, load_agent
from agents.file_watch import watch
from agents.probes.threads import SideThread
from schemas.file_signature import Signature, signature
from schemas.yaml_files import DocumentError, config_version, read_bytes

# Behind the version of a file of which something needs a restart.
RESTART = "+restart"

log = logging.getLogger(__name__)


class CannotApplyError(ValueError):
    """The machine refuses something that the new config needs; nothing of it is in effect."""


class Result(StrEnum):
    """What came of looking at the file."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """It cannot be used: all that was in effect still is."""


@dataclass(frozen=True, slots=True)
class Reload:
    """One look at the file. `version`: of what is in effect now; `restart`: fields that keep their old values."""

    result: Result
    version: str
    restart: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    probes: Change | None = None


@dataclass(slots=True)
class ReloadFigures:
    """For metrics, in any thread. `success_s`: when the file was last found good, Unix time."""

    version: str
    success_s: float
    successful: bool = True
    restart: tuple[str, ...] = ()
    counts: Counter[Result] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A config, and how its file looked before it was read."""

    path: Path
    config: AgentConfig
    seen: Signature | None


def load_file(path: Path) -> LoadedFile:
    """Raises DocumentError."""
    seen = signature(path)
    return LoadedFile(path, load_agent(path), seen)


Apply = Callable[[AgentConfig, str], Awaitable[Change]]


class Reloader:
    """Looks at the file, one look at a time."""

    def __init__(self, loaded: LoadedFile, apply: Apply, clock: Clock, ignored: Collection[str] = ()) -> None:
        """`apply` lets a config and its version take effect, or raises CannotApplyError and changes nothing.

        `ignored`: fields that wait for no restart beside those of agents.changes, since the command line gives them.
        """
        self._loaded = loaded
        self._apply = apply
        self._clock = clock
        self._ignored = ignored
        self._latest: str | None = loaded.config.version
        """Of the bytes looked at last, good or not; None when there were none."""
        self._read = SideThread(lambda: read_bytes(loaded.path))
        self._lock = asyncio.Lock()
        self._asked = asyncio.Event()
        self._told = False
        self.figures = ReloadFigures(loaded.config.version, clock.wall_ms() / 1_000)

    async def run(self) -> None:
        """Until cancelled: looks at the file when it changes, and when told to."""
        watch(self._loaded.path, self._loaded.seen, self._asked.set)
        while await self._asked.wait():
            self._asked.clear()
            told, self._told = self._told, False
            if told or await self._differs():
                await self.reload()

    def tell(self) -> None:
        """Looks soon, whether the file has changed or not."""
        self._told = True
        self._asked.set()

    async def reload(self) -> Reload:
        """Looks now."""
        async with self._lock:
            outcome = await self._reload()
            figures = self.figures
            figures.counts[outcome.result] += 1
            figures.successful = outcome.result is not Result.REFUSED
            if figures.successful:
                figures.version, figures.restart = outcome.version, outcome.restart
                figures.success_s = self._clock.wall_ms() / 1_000
            _log(outcome)
            return outcome

    async def _differs(self) -> bool:
        """Whether the file says something else than when it was last looked at."""
        try:
            return config_version(await self._read.call()) != self._latest
        except DocumentError:
            return True

    async def _reload(self) -> Reload:
        running, path = self.figures, self._loaded.path
        before, self._latest = self._latest, None
        try:
            content = await self._read.call()
            self._latest = config_version(content)
            if self._latest == before and running.successful:
                return Reload(Result.UNCHANGED, running.version, running.restart)
            config = await SideThread(lambda: build_agent(content, path)).call()
            restart = tuple(sorted({*needs_restart(self._loaded.config.file, config.file)} - {*self._ignored}))
            version = config.version + (RESTART if restart else "")
            probes = await self._apply(config, version)
        except DocumentError as cause:
            return Reload(Result.REFUSED, running.version, running.restart, cause.problems)
        except CannotApplyError as cause:
            return Reload(Result.REFUSED, running.version, running.restart, (f"{path}: {cause}",))
        except Exception as cause:  # a plugin may raise anything
            log.exception("the config cannot be built")
            return Reload(Result.REFUSED, running.version, running.restart, (f"{path}: {cause!r}",))
        return Reload(Result.APPLIED, version, restart, probes=probes)


def _log(outcome: Reload) -> None:
    if outcome.result is Result.REFUSED:
        log.error(
            "config refused, that of before stays",
            extra={"config_version": outcome.version, "problems": outcome.problems},
        )
        return
    log.info("config %s", outcome.result, extra={"config_version": outcome.version, **_counts(outcome)})
    if outcome.restart:
        log.warning("these need a restart, and stay as they are", extra={"fields": outcome.restart})


def answer(outcome: Reload) -> dict[str, object]:
    """What a reload came to, for who asked for it."""
    told: dict[str, object] = {"result": outcome.result, "config_version": outcome.version}
    if outcome.result is Result.REFUSED:
        return {"error": "the config is refused, that of before stays", **told, "problems": outcome.problems}
    return {**told, **_counts(outcome), "needs_restart": outcome.restart}


def _counts(outcome: Reload) -> dict[str, object]:
    change = outcome.probes
    if change is None:
        return {}
    counts = {"added": len(change.added), "changed": len(change.changed), "removed": len(change.removed)}
    return {"probes": {**counts, "unchanged": change.unchanged}}
