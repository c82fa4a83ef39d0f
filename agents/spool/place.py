"""Where a node's spool is, and that only one agent uses it."""

import errno
import fcntl
import hashlib
import logging
import os
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agents.clock import Clock
from agents.spool.lane import SpoolLane, SpoolLimits
from agents.spool.layout import BOOT_BYTES, Era
from agents.spool.store import Store

NAME = "spool"
_LOCK = "lock"
_BOOT = "boot"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class SpoolError(RuntimeError):
    """The folder cannot be used."""


class SpoolFullError(SpoolError):
    """The disk has no room to begin a spool."""


def spool_folder(configured: str | None) -> Path | None:
    """The folder of all spools, from the config or from systemd; None when nobody names one."""
    if configured is not None:
        return Path(configured)
    state = os.environ.get("STATE_DIRECTORY")
    return Path(state.split(":")[0]) / NAME if state else None


class SpoolPlace:
    """The folder of one node below that of all. What other names left there is not sent: a node speaks for itself."""

    def __init__(self, folder: Path, node_id: str) -> None:
        digest = hashlib.blake2s(node_id.encode(), digest_size=6).hexdigest()
        self.folder = folder / f"{re.sub('[^A-Za-z0-9_-]', '_', node_id)[:64]}-{digest}"
        self._lock = -1
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolError(f"{self.folder}: another agent uses it; expected one agent for each node") from None
        except OSError as cause:
            raise _problem(self.folder, cause) from cause
        others = [path.name for path in folder.iterdir() if path.is_dir() and path != self.folder]
        if others:
            log.warning("spools of other nodes lie beside this one's and are not sent", extra={"spools": others[:10]})

    def boot_ts(self, wall_ms: int) -> int:
        """When this boot begins, ms UTC: now, but later than every boot before, also when the clock was set back.

        Consumers order boots by it and take nothing from one that is older than what they know.
        """
        path = self.folder / _BOOT
        begun = path.with_suffix(".new")
        try:
            before = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            before = -1
        boot_ts = max(wall_ms, before + 1)
        if boot_ts > wall_ms:
            log.warning("the clock is behind the last start: this one is told as right after it", extra={"ms": before})
        try:
            begun.write_text(str(boot_ts), encoding="ascii")
            begun.replace(path)
        except OSError as cause:  # a full disk is no reason not to start
            log.warning("the time of this start cannot be kept", extra={"path": str(path), "why": str(cause)})
        return boot_ts

    def lanes(
        self, topics: Iterable[str], limits: SpoolLimits, clock: Clock, rng: random.Random
    ) -> dict[str, SpoolLane]:
        """One for each topic, with what was left in it. Raises SpoolError."""
        era = Era(_boot(rng), clock.wall_ms(), round(clock.monotonic_s() * 1_000))
        lanes = {}
        for topic in topics:
            folder = self.folder / topic
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                store = Store(folder, limits.max_bytes, era)
                store.open()
            except OSError as cause:
                os.close(self._lock)
                raise _problem(folder, cause) from cause
            if store.waiting:
                log.info("records of before wait in the spool", extra={"topic": topic, "records": store.waiting})
            lanes[topic] = SpoolLane(store, limits, rng)
        return lanes


def _problem(folder: Path, cause: OSError) -> SpoolError:
    kind = SpoolFullError if cause.errno in {errno.ENOSPC, errno.EDQUOT} else SpoolError
    return kind(f"{folder}: {(cause.strerror or str(cause)).lower()}")


def _boot(rng: random.Random) -> bytes:
    """What names this run of the kernel; without it each process is one of its own."""
    with suppress(OSError, ValueError):
        return bytes.fromhex(_BOOT_ID.read_text(encoding="ascii").strip().replace("-", ""))
    return rng.randbytes(BOOT_BYTES)
