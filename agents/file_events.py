"""Hears from the kernel when a file may have become another (inotify), so that nobody has to look again and again.

Only where the kernel sees whoever writes: not where another host may, as on NFS, nor on file systems of programs.
"""

import ctypes
import errno
import os
import select
import time
from pathlib import Path

# include/uapi/linux/inotify.h
_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_ITSELF = _DELETE_SELF | _MOVE_SELF
_CONTENT = _MODIFY | _ATTRIB
# include/uapi/linux/magic.h, and where the file systems themselves say so.
_SEEN_BY_THE_KERNEL = frozenset(
    {
        0x0000EF53,  # ext2 to ext4
        0x01021994,  # tmpfs
        0x2FC12FC1,  # zfs
        0x58465342,  # xfs
        0x794C7630,  # overlayfs
        0x858458F6,  # ramfs
        0x9123683E,  # btrfs
        0xCA451A4E,  # bcachefs
        0xF2F52010,  # f2fs
    }
)
_STATFS_BYTES = 256
_MOST_LINKS = 40
# Why it cannot be used may end some day, such as too many users of inotify.
TRY_AGAIN_S = 60.0


class FileEvents:
    """All that leads to a file by its path: folders, links, the file. Not safe for threads; may block on a disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kernel = ctypes.CDLL(None, use_errno=True)
        self._file = -1
        self._deaf_until_s = float("-inf")

    def listen(self) -> bool:
        """Whether whatever happens from now on will be heard; False where that cannot be had."""
        if self._file >= 0:
            return True
        if time.monotonic() < self._deaf_until_s:
            return False
        try:
            self._file = self._call("inotify_init1", os.O_CLOEXEC)
            for place, events in way_to(self._path).items():
                self._follow(place, events)
        except (OSError, AttributeError):  # the latter where there is no inotify at all
            self.close()
            self._deaf_until_s = time.monotonic() + TRY_AGAIN_S
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Returns when something has happened, and then no longer listens; or after that long."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        if poll.poll(seconds * 1_000):
            self.close()

    def close(self) -> None:
        """No longer listens."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _follow(self, place: str, events: int) -> None:
        name, status = os.fsencode(place), ctypes.create_string_buffer(_STATFS_BYTES)
        self._call("statfs", name, status)
        kind = ctypes.c_long.from_buffer(status).value & 0xFFFFFFFF
        if kind not in _SEEN_BY_THE_KERNEL:
            raise OSError(errno.EOPNOTSUPP, f"file system {kind:#x}", place)
        self._call("inotify_add_watch", self._file, name, events)

    def _call(self, function: str, *arguments: object) -> int:
        answer = int(self._kernel[function](*arguments))
        if answer < 0:
            raise OSError(ctypes.get_errno(), function)
        return answer


def way_to(path: Path) -> dict[str, int]:
    """What has to be followed to hear that the file is another, and which events of each. Raises OSError.

    Of folders in which a name or a link on the way stands, their names; of those above, whether they are moved; of the
    file, its content too, since it may be mounted on its own, as containers do it.
    """
    folder, to_go, links = "/", list(reversed(path.absolute().parts[1:])), 0
    way = {folder: _ITSELF}
    while to_go:
        name = to_go.pop()
        place = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118 - `folder` has no links
        try:
            target = Path(os.readlink(place))  # noqa: PTH115 - the reason why not is asked for
        except OSError as cause:
            if cause.errno == errno.ENOENT:
                way[folder] |= _NAMES
                break
            if cause.errno != errno.EINVAL:  # it is no link
                raise
            if to_go:
                way.setdefault(place, _ITSELF)
                folder = place
            else:
                way[folder] |= _NAMES
                way[place] = way.get(place, 0) | _ITSELF | _CONTENT
        else:
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            way[folder] |= _NAMES
            if target.is_absolute():
                folder = "/"
            to_go += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return way
