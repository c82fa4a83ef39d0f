"""Probe kind `file-age`: a file, such as last night's backup, is new enough and not empty."""

import time
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agents.probes.base import Outcome, ProbeKind, Settings
from agents.probes.threads import SideThread
from agents.probes.watch import Watch, watched


class FileAgeConfig(Settings):
    """The file has to be there, written to at most `max_age_s` ago, and as large as `min_bytes`."""

    path: Path
    max_age_s: Annotated[float, Field(gt=0)]
    min_bytes: Annotated[int, Field(ge=0)] = 1


class FileAgeProbe:
    """One file."""

    def __init__(self, config: FileAgeConfig) -> None:
        self._config = config
        self._stat = SideThread(config.path.stat)

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._look, deadline_s)

    async def _look(self, watch: Watch) -> Outcome:
        config = self._config
        try:
            found = await self._stat.call()
        except OSError as cause:
            return watch.down("no-file", f"{config.path}: {cause.strerror}")
        age_s = time.time() - found.st_mtime
        watch.note(f"{config.path}: {found.st_size} bytes, {age_s:.0f} s old")
        if found.st_size < config.min_bytes:
            return watch.invalid("too-small", f"{found.st_size} bytes; expected at least {config.min_bytes}")
        if age_s > config.max_age_s:
            return watch.invalid("too-old", f"{age_s:.0f} s; expected at most {config.max_age_s:g}")
        return watch.up()


KIND = ProbeKind("file-age", FileAgeConfig, FileAgeProbe)
