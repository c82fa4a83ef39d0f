"""Kind `disk`: a file system has enough free bytes and inodes."""

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import ByteSize, Field, model_validator

from agents.probes.base import Outcome, ProbeKind, Settings
from agents.probes.threads import SideThread
from agents.probes.watch import Watch, watched

Percent = Annotated[float, Field(ge=0, le=100)]


class DiskConfig(Settings):
    """Free means free for those who are not root; `min_free` takes units, such as 20GiB."""

    path: Path
    min_free_percent: Percent = 10
    min_free: ByteSize = ByteSize(0)
    min_free_inodes_percent: Percent = 5

    @model_validator(mode="after")
    def _is_absolute(self) -> Self:
        if not self.path.is_absolute():
            raise ValueError(f"path {self.path}; expected an absolute one")
        return self


class DiskProbe:
    """One file system of this host."""

    def __init__(self, config: DiskConfig) -> None:
        self._config = config
        self._statvfs = SideThread(lambda: os.statvfs(config.path))

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._look, deadline_s)

    async def _look(self, watch: Watch) -> Outcome:
        try:
            found = await self._statvfs.call()
        except OSError as cause:
            return watch.down("no-file-system", f"{self._config.path}: {cause.strerror}")
        free = found.f_bavail * found.f_frsize
        # As df counts: what only root may use is not there.
        percent = _percent(found.f_bavail, found.f_blocks - found.f_bfree + found.f_bavail)
        inodes = _percent(found.f_favail, found.f_files)
        watch.note(f"free: {percent:.1f} %, {ByteSize(free).human_readable()}, inodes {inodes:.1f} %")
        if free < self._config.min_free or percent < self._config.min_free_percent:
            expected = f"{self._config.min_free_percent:g} % and {self._config.min_free.human_readable()}"
            shown = ByteSize(free).human_readable()
            return watch.invalid(
                "disk-full", f"{self._config.path}: {percent:.1f} %, {shown} free; expected {expected}"
            )
        if inodes < self._config.min_free_inodes_percent:
            expected = f"{self._config.min_free_inodes_percent:g} %"
            return watch.invalid("no-inodes", f"{self._config.path}: {inodes:.1f} % inodes free; expected {expected}")
        return watch.up()


def _percent(part: int, whole: int) -> float:
    """100 where nothing is counted, as btrfs does with inodes."""
    return 100 * part / whole if whole else 100.0


KIND = ProbeKind("disk", DiskConfig, DiskProbe)
