"""Whether a file is another than it was, by how it looks from outside."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Signature:
    """Differs when the file was written or replaced, also behind symbolic links, as in a ConfigMap's folder."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def signature(path: Path) -> Signature | None:
    """Of the file as it is now; None when there is none to be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
