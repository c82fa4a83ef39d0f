"""The .deb: an ar of three members, written here, so that it repeats byte by byte and needs no Debian to be made."""

import gzip
import hashlib
import io
import lzma
import platform
import shutil
import tarfile
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from infra.packages.archive import HERE, NAME, ROOT, everything, needed_glibc, write_tar

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LIBRARY = Path("usr/lib") / NAME
COMMAND = Path("usr/bin/fleetbeat")
UNIT = Path("usr/lib/systemd/system") / f"{NAME}.service"
CONFIG = Path("etc/fleetbeat/agent.yaml")
DOCS = Path("usr/share/doc") / NAME
SCRIPTS = ("postinst", "prerm", "postrm")
MAINTAINER = "fleetbeat <fleetbeat@localhost>"
_CHECKOUT_COMMAND = "/opt/fleetbeat/bin/fleetbeat"
_MAGIC = b"!<arch>\n"


@dataclass(frozen=True, slots=True)
class Package:
    """What is told about it; `changed_s` is the time of all its files."""

    version: str
    changed_s: int
    architecture: str = ARCHITECTURES.get(platform.machine(), "all")

    @property
    def file_name(self) -> str:
        """As Debian names its files."""
        return f"{NAME}_{self.version}_{self.architecture}.deb"


def write_deb(folder: Path, work: Path, package: Package, path: Path) -> None:
    """The package that installs the folder below /usr/lib, with its unit, its config and its command."""
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    _lay_out(folder, root, package)
    control = {
        "control": _control(root, package, needed_glibc(folder)),
        "conffiles": f"/{CONFIG}\n",
        "md5sums": _md5sums(root),
        **{script: (HERE / "deb" / script).read_text(encoding="utf-8") for script in SCRIPTS},
    }
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_control_tar(control, package.changed_s), mtime=package.changed_s),
        "data.tar.xz": lzma.compress(_data_tar(root, package.changed_s)),
    }
    path.write_bytes(_MAGIC + b"".join(_member(name, data, package.changed_s) for name, data in members.items()))


def _lay_out(folder: Path, root: Path, package: Package) -> None:
    shutil.copytree(folder, root / LIBRARY, symlinks=True, ignore=shutil.ignore_patterns("*.service", "agent.yaml"))
    for place in (COMMAND, UNIT, CONFIG, DOCS):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / COMMAND).symlink_to(f"../lib/{NAME}/fleetbeat")
    unit = (ROOT / "infra" / "systemd" / UNIT.name).read_text(encoding="utf-8")
    (root / UNIT).write_text(unit.replace(_CHECKOUT_COMMAND, f"/{COMMAND}"), encoding="utf-8")
    shutil.copy(HERE / "deb" / "agent.yaml", root / CONFIG)
    (root / DOCS).mkdir()
    shutil.copy(HERE / "deb" / "copyright", root / DOCS / "copyright")
    for name, text in (("changelog", _changelog(package)), ("NEWS", (ROOT / "CHANGELOG.md").read_text("utf-8"))):
        (root / DOCS / f"{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    shutil.copy(ROOT / "examples" / "agent.yaml", root / DOCS / "agent.yaml")
    for path in everything(root):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.name == "fleetbeat" else 0o644)


def _changelog(package: Package) -> str:
    """In Debian's form, which has the version and the time; what is new stands in NEWS."""
    return (
        f"{NAME} ({package.version}) unstable; urgency=medium\n\n  * What is new: NEWS.gz beside this file.\n\n"
        f" -- {MAINTAINER}  {formatdate(package.changed_s).replace('-0000', '+0000')}\n"
    )


def _control(root: Path, package: Package, glibc: str) -> str:
    size_kb = sum(max(1, path.lstat().st_size // 1024) for path in everything(root))
    return (
        f"Package: {NAME}\n"
        f"Version: {package.version}\n"
        f"Architecture: {package.architecture}\n"
        f"Maintainer: {MAINTAINER}\n"
        f"Installed-Size: {size_kb}\n"
        f"Depends: libc6 (>= {glibc})\n"
        "Section: net\n"
        "Priority: optional\n"
        "Description: telemetry collector of a host: heartbeats and probes to Kafka\n"
        " Sends heartbeats and what its probes find (http, tcp, dns, tls, disks,\n"
        " processes) to Kafka, and keeps them on disk while Kafka is away. It brings its\n"
        " own Python.\n"
    )


def _md5sums(root: Path) -> str:
    files = [path for path in everything(root) if path.is_file() and not path.is_symlink()]
    return "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in files
        if path.relative_to(root) != CONFIG
    )


def _control_tar(files: dict[str, str], changed_s: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in sorted(files.items()):
            found = tarfile.TarInfo(f"./{name}")
            found.size, found.mtime = len(text.encode()), changed_s
            found.mode = 0o755 if name in SCRIPTS else 0o644
            found.uname = found.gname = "root"
            tar.addfile(found, io.BytesIO(text.encode()))
    return packed.getvalue()


def _data_tar(root: Path, changed_s: int) -> bytes:
    packed = io.BytesIO()
    write_tar(root, packed, changed_s, ".")
    return packed.getvalue()


def _member(name: str, data: bytes, changed_s: int) -> bytes:
    """One file of an ar, at an even place."""
    head = f"{name:<16}{changed_s:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return head + data + b"\n" * (len(data) % 2)
