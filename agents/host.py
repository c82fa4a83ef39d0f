"""How busy and how well this host is: processor, memory, the fullest disk, and its health."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psutil

from agents.clock import Clock
from agents.health.window import Health

# Images are full by nature.
_IMAGES = frozenset({"erofs", "iso9660", "squashfs", "udf"})
# Shorter than this, a share of processor time is noise.
_LEAST_S = 0.5


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Used shares from 0 to 1000; None for what is not known now."""

    cpu_permille: int | None
    memory_permille: int | None
    disk_permille: int | None
    health: Health = field(default_factory=Health)


class Host:
    """Reads the facts. A thread of its own reads disks, since one that is gone may block its reader for ever."""

    def __init__(self, disks_every_s: float, clock: Clock, health: Callable[[], Health] = Health) -> None:
        self._health = health
        self._disks_every_s = disks_every_s
        self._clock = clock
        self._changed = threading.Event()
        self._disk: tuple[float, int | None] | None = None
        psutil.cpu_percent()  # counts from here; /proc/stat and /proc/meminfo do not block
        self._cpu_from_s = clock.monotonic_s()

    def change(self, disks_every_s: float) -> None:
        """Reads disks so often from now on."""
        if disks_every_s != self._disks_every_s:
            self._disks_every_s = disks_every_s
            self._changed.set()

    def start(self) -> None:
        """Begins to read disks; the thread ends with the process."""
        threading.Thread(target=self._read_disks, name="disks", daemon=True).start()

    def facts(self) -> HostFacts:
        """As of now; the processor's share since the call before. A disk's share that is too old is not known."""
        now_s = self._clock.monotonic_s()
        cpu = None
        if now_s - self._cpu_from_s >= _LEAST_S:
            cpu, self._cpu_from_s = _permille(psutil.cpu_percent()), now_s
        disk = self._disk
        fresh = disk is not None and now_s - disk[0] <= 3 * self._disks_every_s
        memory = _permille(psutil.virtual_memory().percent)
        return HostFacts(cpu, memory, disk[1] if disk and fresh else None, self._health())

    def _read_disks(self) -> None:
        while True:
            self._disk = self._clock.monotonic_s(), fullest_disk()
            self._changed.wait(self._disks_every_s)
            self._changed.clear()


def fullest_disk() -> int | None:
    """The used share of the fullest disk that can be written to, permille; None when none can be read. May block."""
    places = [part.mountpoint for part in psutil.disk_partitions() if _fills_up(part.fstype, part.opts.split(","))]
    # In a container often no disk is listed, but it stands on one.
    return _fullest(places or ["/"])


def _fullest(places: Iterable[str]) -> int | None:
    used = []
    for place in places:
        try:
            used.append(_permille(psutil.disk_usage(place).percent))
        except OSError:  # not for us to see, or unmounted this very moment
            continue
    return max(used, default=None)


def _fills_up(fstype: str, options: Iterable[str]) -> bool:
    return fstype not in _IMAGES and "ro" not in options


def _permille(percent: float) -> int:
    return min(1_000, max(0, round(percent * 10)))
