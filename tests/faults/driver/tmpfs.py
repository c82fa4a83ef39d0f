"""A disk of its own that is small enough to be filled, and freed again: needs root."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Self

SIZE_BYTES = 4 << 20
PIECE_BYTES = 4_096


class SmallDisk:
    """A tmpfs at a folder while its context lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        options = f"size={SIZE_BYTES}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: an agent that is about to end may still have files open.
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self) -> None:
        """Until not a byte fits."""
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (PIECE_BYTES, 1):
                while True:
                    try:
                        os.write(descriptor, bytes(size))
                    except OSError as cause:
                        if cause.errno != errno.ENOSPC:
                            raise
                        break
        finally:
            os.close(descriptor)

    def free(self) -> None:
        self._filler.unlink()
