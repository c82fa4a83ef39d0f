"""A small library (shim.c) between the engine and the kernel: dies at the rename of a part, or has a full disk."""

import ctypes
import mmap
import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
VARIABLE = "FLEETBEAT_SHIM"
_LIBRARY = "_chdb.abi3.so"
_PAGE = 4096
_FULL, _DIE, _TABLE = 0, 1, 8
# As many imports as are taken over: rename and statvfs.
_IMPORTS = 2


class Shim:
    """One shared page for the processes that are started with `prefix`. Needs a C compiler, `cc`."""

    def __init__(self, folder: Path) -> None:
        self._page = folder / "shim.page"
        library = self._page.with_suffix(".so")
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
        self._page.write_bytes(bytes(_PAGE))
        self.prefix: list[str | Path] = ["/usr/bin/env", f"{VARIABLE}={self._page}"]

    def fill_disk(self, *, full: bool) -> None:
        """While it is full, the engine finds no space on its disk."""
        _poke(self._page, _FULL, bytes([full]))

    def die_at_rename(self, table_uuid: str, *, after: bool) -> None:
        """The next part that the table of that id gets is the last that the process makes."""
        die_at_rename(self._page, table_uuid, after=after)

    def calm(self) -> None:
        """Nobody dies any more."""
        _poke(self._page, _DIE, b"\0")


def take_over() -> Path | None:
    """To be called in a process whose engine is open; the page, or None when it was started without a shim."""
    page = os.environ.get(VARIABLE)
    if page is None:
        return None
    taken = ctypes.CDLL(str(Path(page).with_suffix(".so"))).take_over(page.encode(), _LIBRARY.encode())
    assert taken >= _IMPORTS, f"{taken} imports of {_LIBRARY} taken over; expected {_IMPORTS}"
    return Path(page)


def die_at_rename(page: Path, table_uuid: str, *, after: bool) -> None:
    _poke(page, _TABLE, table_uuid.encode() + b"\0")
    _poke(page, _DIE, b"\2" if after else b"\1")


def _poke(path: Path, place: int, value: bytes) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _PAGE) as page:
        page[place : place + len(value)] = value
