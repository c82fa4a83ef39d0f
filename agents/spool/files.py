"""What the spool asks of the file system, in one place: tests fill the disk there, or end the process at any call."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

OWNER_ONLY = 0o600

log = logging.getLogger(__name__)


class Files:
    """Plain system calls. All raise OSError."""

    def create(self, path: Path) -> int:
        """A descriptor of a new, empty file."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, OWNER_ONLY)

    def open(self, path: Path) -> int:
        """A descriptor of a file that is there, to read and write."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        """Writes at the offset; how many bytes, since a full disk may take only some."""
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cuts the file."""
        os.ftruncate(descriptor, size)

    def remove(self, path: Path) -> None:
        """Deletes a file, which may be gone already."""
        path.unlink(missing_ok=True)

    def sync(self, path: Path) -> None:
        """Brings a file, or a folder's list of names, through a loss of power. May block for long."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_all(self, paths: Iterable[Path]) -> set[Path]:
        """Those that the disk refused; one that is gone needs no sync."""
        failed = set()
        for path in paths:
            try:
                self.sync(path)
            except FileNotFoundError:
                continue
            except OSError as cause:
                failed.add(path)
                log.error(  # noqa: TRY400 - the reason says it all
                    "the spool cannot be synced", extra={"path": str(path), "why": str(cause)}
                )
        return failed

    def write_all(self, descriptor: int, data: bytes, offset: int) -> None:
        """Writes all of it, or raises; what was written by then stays, for the caller to cut off."""
        view = memoryview(data)
        while view:
            done = self.write(descriptor, bytes(view), offset)
            view, offset = view[done:], offset + done
