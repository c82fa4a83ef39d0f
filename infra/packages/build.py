"""`make packages`: the archive and the .deb of this checkout, into dist/."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from infra import InfraError
from infra.packages.archive import NAME, ROOT, build_folder, write_archive
from infra.packages.deb import ARCHITECTURES, Package, write_deb

WORK = ROOT / ".fleetbeat" / "packages"
DIST = ROOT / "dist"
MB = 1_000_000


def main() -> int:
    """The exit status."""
    try:
        for path in build(WORK, DIST):
            print(f"{path}: {path.stat().st_size / MB:.1f} MB")
    except InfraError as cause:
        print(f"packages: {cause}", file=sys.stderr)
        return 1
    return 0


def build(work: Path, into: Path) -> list[Path]:
    """The packages of this machine's processor. Raises BuildError."""
    for folder in (work, into):
        folder.mkdir(parents=True, exist_ok=True)
    package = Package(_version(), _changed_s())
    folder = build_folder(work)
    archive = into / f"{NAME}-{package.version}-linux-{os.uname().machine}.tar.gz"
    write_archive(folder, archive, package.changed_s)
    made = [archive]
    if os.uname().machine in ARCHITECTURES:
        made.append(into / package.file_name)
        write_deb(folder, work, package, made[-1])
    return made


def _version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def _changed_s() -> int:
    """The time of the last commit, so that a commit has one package; SOURCE_DATE_EPOCH goes before it."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        return int(given)
    answer = subprocess.run(
        ["git", "log", "-1", "--format=%ct"],  # noqa: S607 - git as it is found
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return int(answer.stdout or 0)


if __name__ == "__main__":
    sys.exit(main())
