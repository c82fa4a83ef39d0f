"""Kind `process`: as many processes run as should."""

import os
from typing import Annotated, Self

import psutil
from pydantic import Field, model_validator

from agents.probes.base import Outcome, ProbeKind, Settings
from agents.probes.threads import SideThread
from agents.probes.watch import Watch, watched

Text = Annotated[str, Field(min_length=1, max_length=4_096)]


class ProcessConfig(Settings):
    """Processes called `name` whose command line contains `cmdline_contains`; at least one of the two is given."""

    name: Text | None = None
    cmdline_contains: Text | None = None
    min_count: Annotated[int, Field(ge=0)] = 1
    max_count: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.name is None and self.cmdline_contains is None:
            raise ValueError("no process; expected name, cmdline_contains or both")
        if self.max_count is not None and self.max_count < self.min_count:
            raise ValueError(f"max_count {self.max_count}; expected at least min_count, {self.min_count}")
        return self


class ProcessProbe:
    """One program on this host."""

    def __init__(self, config: ProcessConfig) -> None:
        self._config = config
        self._count = SideThread(lambda: sum(_is_it(one, config) for one in psutil.process_iter()))

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._look, deadline_s)

    async def _look(self, watch: Watch) -> Outcome:
        count = await self._count.call()
        config = self._config
        what = " ".join(repr(text) for text in (config.name, config.cmdline_contains) if text)
        watch.note(f"{count} processes {what}")
        if count < config.min_count:
            return watch.invalid("too-few-processes", f"{count} processes {what}; expected at least {config.min_count}")
        if config.max_count is not None and count > config.max_count:
            return watch.invalid("too-many-processes", f"{count} processes {what}; expected at most {config.max_count}")
        return watch.up()


def _is_it(process: psutil.Process, config: ProcessConfig) -> bool:
    """Whether it counts: not the agent itself, whose command line may name the program, and no zombie."""
    try:
        return (
            process.pid != os.getpid()
            and (config.name is None or process.name() == config.name)
            and (config.cmdline_contains is None or config.cmdline_contains in " ".join(process.cmdline()))
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:  # it ended just now, or is not ours to look into
        return False


KIND = ProbeKind("process", ProcessConfig, ProcessProbe)
