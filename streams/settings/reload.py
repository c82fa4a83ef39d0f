"""The file of --config while a worker or an archive runs: read again when it changes or somebody asks.

It takes effect as a whole or not at all. What cannot change while the process runs is named, and refuses the file too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas.file_signature import Signature, signature
from schemas.yaml_files import DocumentError, config_version, read_bytes
from streams.settings.load import FileT, Kind, build_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    OptionsT = TypeVar("OptionsT", bound=DataclassInstance)
else:
    OptionsT = TypeVar("OptionsT")

# A file is read when it has looked the same twice, so that nobody's half written one is.
LOOK_EVERY_S = 0.25
RETRY_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.config")


class CannotApplyError(ValueError):
    """New options cannot be used; nothing of them is in effect. `again`: what is in the way may pass by itself."""

    def __init__(self, problems: Sequence[str], *, again: bool = False) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.again = again


class Outcome(StrEnum):
    """What came of looking at the file."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """It cannot be used: all that was in effect still is."""
    NEEDS_RESTART = "needs_restart"
    """It is good and changes what only a restart can change: all that was in effect still is."""
    FAILED = "failed"
    """It is good and could not be applied now: all that was in effect still is, and it is tried again."""


@dataclass(frozen=True, slots=True)
class Reload:
    """One look. `version`: of what is in effect now; `changed`, `restart`: keys of the file."""

    outcome: Outcome
    version: str
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded(Generic[OptionsT]):
    """The options that a file and the command line came to, how the file looked before, and how to read it again."""

    path: Path
    options: OptionsT
    version: str
    seen: Signature | None
    read: Callable[[bytes], OptionsT]


def load(path: Path, read: Callable[[bytes], OptionsT]) -> Loaded[OptionsT]:
    """Raises what `read` raises: DocumentError and other errors of ours."""
    seen = signature(path)
    content = read_bytes(path)
    return Loaded(path, read(content), config_version(content), seen, read)


def begin(
    config: Path | None, kind: Kind[FileT], merge: Callable[[FileT], OptionsT]
) -> tuple[OptionsT, Loaded[OptionsT] | None]:
    """The options to start with, and the file of --config, if there is one.

    Raises DocumentError, and what `merge` raises.
    """
    if config is None:
        return merge(kind.model()), None
    loaded = load(config, lambda content: merge(build_file(content, config, kind)))
    return loaded.options, loaded


# Alerts ask for them by name.
_SUCCESSFUL = {
    "worker": "fleetbeat_worker_config_last_reload_successful",
    "archive": "fleetbeat_archive_config_last_reload_successful",
}


class ReloadMetrics:
    """By the names that the agent's have."""

    def __init__(self, process: Literal["worker", "archive"], registry: CollectorRegistry) -> None:
        prefix = f"fleetbeat_{process}_config"
        self._info = Gauge(f"{prefix}_info", "Always 1; which config is in effect.", ["version"], registry=registry)
        self._successful = Gauge(
            _SUCCESSFUL[process],
            "0 when the file is not in effect, and the config of before is.",
            registry=registry,
        )
        self._success_s = Gauge(
            f"{prefix}_last_reload_success_timestamp_seconds",
            "When the file in effect was last found good.",
            registry=registry,
        )
        self._reloads = Counter(
            f"{prefix}_reloads", "Looks at the file by what came of them.", ["outcome"], registry=registry
        )
        for outcome in Outcome:
            self._reloads.labels(outcome)

    def show(self, version: str, *, successful: bool) -> None:
        """What is in effect, and whether that is what the file says now."""
        self._info.clear()
        self._info.labels(version).set(1)
        self._successful.set(successful)
        if successful:
            self._success_s.set_to_current_time()

    def count(self, outcome: Outcome) -> None:
        """A look."""
        self._reloads.labels(outcome).inc()


Apply = Callable[[OptionsT, OptionsT], Awaitable[None]]


class Reloader(Generic[OptionsT]):
    """Looks at the file, one look at a time."""

    def __init__(
        self,
        loaded: Loaded[OptionsT],
        keys: Mapping[str, str],
        fixed: Callable[[OptionsT, OptionsT], Collection[str]],
        apply: Apply[OptionsT],
        metrics: ReloadMetrics,
    ) -> None:
        """`keys`: of the file by the names of options; `fixed`: those that differ and cannot change in a process.

        `apply` brings the process from the first options to the second, or raises CannotApplyError and changes nothing.
        """
        self._loaded = loaded
        self._keys = keys
        self._fixed = fixed
        self._apply = apply
        self._metrics = metrics
        self._seen = loaded.seen
        self._options = loaded.options
        self._version = loaded.version
        self._again_s: float | None = None  # monotonic
        self._lock = asyncio.Lock()
        metrics.show(loaded.version, successful=True)

    async def watch(self) -> None:
        """Until cancelled: looks at the file when it has changed and come to rest, and again after a failure."""
        before = self._seen
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = signature(self._loaded.path)
            changed = now != self._seen and now == before
            if changed or (self._again_s is not None and time.monotonic() >= self._again_s):
                await self.reload()
            before = now

    async def reload(self) -> Reload:
        """Looks now."""
        async with self._lock:
            self._seen = signature(self._loaded.path)
            found = await self._look()
            self._again_s = time.monotonic() + RETRY_S if found.outcome is Outcome.FAILED else None
            self._metrics.count(found.outcome)
            self._metrics.show(found.version, successful=found.outcome in {Outcome.APPLIED, Outcome.UNCHANGED})
            _log(found)
            return found

    async def _look(self) -> Reload:
        path, running = self._loaded.path, self._options
        try:
            content = await asyncio.to_thread(read_bytes, path)
            wanted = await asyncio.to_thread(self._loaded.read, content)
            fixed = tuple(sorted(self._fixed(running, wanted)))
            if fixed:
                return Reload(Outcome.NEEDS_RESTART, self._version, restart=fixed)
            if wanted != running:
                await self._apply(running, wanted)
        except DocumentError as cause:
            return Reload(Outcome.REFUSED, self._version, problems=cause.problems)
        except CannotApplyError as cause:
            outcome = Outcome.FAILED if cause.again else Outcome.REFUSED
            return Reload(outcome, self._version, problems=tuple(f"{path}: {problem}" for problem in cause.problems))
        except ValueError as cause:  # an option that cannot be, or a file that it names
            return Reload(Outcome.REFUSED, self._version, problems=(f"{path}: {cause}",))
        except Exception as cause:  # a process that runs does not end for a file
            log.exception("the config cannot be applied")
            return Reload(Outcome.REFUSED, self._version, problems=(f"{path}: {cause!r}",))
        before, self._options, self._version = self._version, wanted, config_version(content)
        changed = tuple(sorted({self._keys[name] for name in _differing(running, wanted)}))
        outcome = Outcome.APPLIED if changed or before != self._version else Outcome.UNCHANGED
        return Reload(outcome, self._version, changed=changed)


def _differing(before: "DataclassInstance", after: "DataclassInstance") -> list[str]:
    return [field.name for field in fields(after) if getattr(before, field.name) != getattr(after, field.name)]


def _log(found: Reload) -> None:
    match found.outcome:
        case Outcome.REFUSED:
            log.error("config refused, that of before stays", config_version=found.version, problems=found.problems)
        case Outcome.FAILED:
            log.warning("config not applied, that of before stays", why=found.problems, retry_s=RETRY_S)
        case Outcome.NEEDS_RESTART:
            log.warning("config needs a restart, that of before stays", keys=found.restart)
        case outcome:
            log.info("config looked at", outcome=outcome, config_version=found.version, changed=found.changed)


# By what came of it, what HTTP says.
STATUS = {
    Outcome.APPLIED: 200,
    Outcome.UNCHANGED: 200,
    Outcome.REFUSED: 422,
    Outcome.NEEDS_RESTART: 409,
    Outcome.FAILED: 503,
}
_ERRORS = {
    Outcome.REFUSED: "the config is refused, that of before stays",
    Outcome.NEEDS_RESTART: "the config needs a restart, that of before stays",
    Outcome.FAILED: "the config could not be applied, that of before stays and it is tried again",
}


def answer(found: Reload) -> dict[str, Any]:
    """What a reload came to, for who asked for it."""
    told: dict[str, Any] = {"result": found.outcome, "config_version": found.version}
    match found.outcome:
        case Outcome.APPLIED | Outcome.UNCHANGED:
            return {**told, "changed": found.changed}
        case Outcome.NEEDS_RESTART:
            return {"error": _ERRORS[found.outcome], **told, "needs_restart": found.restart}
        case outcome:
            return {"error": _ERRORS[outcome], **told, "problems": found.problems}
