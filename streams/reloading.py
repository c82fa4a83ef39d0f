"""What a running worker takes over: the objectives file, and the file of --config with all that may change in it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields

from prometheus_client import REGISTRY, CollectorRegistry

from schemas.documents import DocumentError
from streams.config import load_objectives
from streams.core.liveness.admission import Limits
from streams.core.signing import Keyring
from streams.engine.partitioning import partition_share
from streams.options import OptionError, WorkerOptions, check_options
from streams.processors.objectives_file import Failed, LoadedFile, ObjectivesFile, Refused, load_file
from streams.processors.signature_gate import Signatures
from streams.settings.reload import CannotApplyError, Loaded, Reloader, ReloadMetrics
from streams.settings.worker import WORKER_KEYS
from streams.signing_keys import load_keyring

# What a running worker can change. Of `signatures` only whether they are required or checked.
LIVE = frozenset(
    {
        "objectives",
        "nodes_max",
        "nodes_new_per_minute",
        "series_max",
        "stall_after_s",
        "signatures",
        "signing_keys",
        "log_level",
    }
)

Adjust = Callable[[WorkerOptions], Awaitable[None]]


class WorkerReloads:
    """Both files of one worker."""

    def __init__(
        self,
        objectives: ObjectivesFile,
        signatures: Signatures | None,
        adjust: Adjust,
        loaded: Loaded[WorkerOptions] | None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`adjust` takes over what cannot fail. `loaded`: the file of --config, if there is one."""
        self.objectives = objectives
        self.config: Reloader[WorkerOptions] | None = None
        if loaded is not None:
            metrics = ReloadMetrics("worker", registry)
            self.config = Reloader(loaded, WORKER_KEYS, needs_restart, self._apply, metrics)
        self._signatures = signatures
        self._adjust = adjust
        self._asked = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled: looks at the files when they change, and when told to."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.objectives.watch())
            tasks.create_task(self._look_when_told())
            if self.config is not None:
                tasks.create_task(self.config.watch())

    def tell(self) -> None:
        """Looks soon."""
        self._asked.set()

    async def _look_when_told(self) -> None:
        while await self._asked.wait():
            self._asked.clear()
            if self.config is not None:
                await self.config.reload()
            await self.objectives.reload()

    async def _apply(self, running: WorkerOptions, wanted: WorkerOptions) -> None:
        """Reads and checks everything, announces objectives, and only then takes over what cannot fail."""
        try:
            objectives = await self._other_objectives(running, wanted)
            keyring = await self._other_keyring(running, wanted)
        except DocumentError as cause:
            raise CannotApplyError(cause.problems) from None
        except OptionError as cause:
            raise CannotApplyError([str(cause)]) from None
        if objectives is not None:
            match await self.objectives.take(objectives):
                case Refused(problems):
                    raise CannotApplyError(problems)
                case Failed(reason):
                    raise CannotApplyError([reason], again=True)
        if self._signatures is not None:
            self._signatures.keyring = keyring or self._signatures.keyring
            self._signatures.refuses = wanted.signatures == "require"
        await self._adjust(wanted)

    async def _other_objectives(self, running: WorkerOptions, wanted: WorkerOptions) -> LoadedFile | None:
        """Those of the file that is named now. Raises DocumentError, OptionError."""
        if wanted.objectives == running.objectives:
            check_options(wanted, wanted.live)
            return None
        loaded = await asyncio.to_thread(load_file, wanted.objectives, load_objectives)
        check_options(wanted, [objective.id for objective in loaded.objectives])
        return loaded

    async def _other_keyring(self, running: WorkerOptions, wanted: WorkerOptions) -> Keyring | None:
        """Raises DocumentError."""
        path = wanted.signing_keys
        return await asyncio.to_thread(load_keyring, path) if path and path != running.signing_keys else None


def node_limits(options: WorkerOptions, partitions: int) -> Limits:
    """What one partition of heartbeats may have of nodes."""
    return Limits(
        max_nodes=partition_share(options.nodes_max, partitions),
        new_per_minute=partition_share(options.nodes_new_per_minute, partitions),
    )


def needs_restart(running: WorkerOptions, wanted: WorkerOptions) -> set[str]:
    """Keys of the file that differ and that a running worker cannot change."""
    return {WORKER_KEYS[name] for name in _fixed(running, wanted)}


def _fixed(running: WorkerOptions, wanted: WorkerOptions) -> Iterator[str]:
    for field in fields(wanted):
        if field.name not in LIVE and getattr(running, field.name) != getattr(wanted, field.name):
            yield field.name
    if "off" in {running.signatures, wanted.signatures} and running.signatures != wanted.signatures:
        yield "signatures"
