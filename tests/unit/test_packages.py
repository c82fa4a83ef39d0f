"""The packages of the agent, made of a small program: what dpkg reads in the .deb, and what it installs and removes."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest

import fleetbeat
from infra.packages import entry
from infra.packages.archive import NAME, needed_glibc, write_archive
from infra.packages.deb import Package, write_deb
from schemas.extras import MissingPackageError

PROGRAM = "#!/bin/sh\necho fleetbeat 9.9.9\n"
CHANGED_S = 1_700_000_000
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg on this machine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As PyInstaller leaves it: a program beside its libraries, and the files that go along."""
    made = tmp_path / NAME
    (made / "_internal").mkdir(parents=True)
    (made / "fleetbeat").write_text(PROGRAM)
    (made / "fleetbeat").chmod(0o755)
    (made / "_internal" / "libnew.so").write_bytes(b"\x7fELF\0GLIBC_2.4\0GLIBC_2.31\0")
    (made / "_internal" / "notes.txt").write_bytes(b"GLIBC_2.99")
    (made / "agent.yaml").write_text("probes: []\n")
    (made / f"{NAME}.service").write_text("")
    return made


@pytest.fixture
def deb(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "agent.deb"
    write_deb(folder, tmp_path / "work", Package("9.9.9", CHANGED_S, "all"), path)
    return path


def said(*command: str | Path, **more: str) -> str:
    answer = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **more}
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def test_the_newest_glibc_that_a_library_names_is_needed(folder: Path) -> None:
    assert needed_glibc(folder) == "2.31"


def test_an_archive_is_owned_by_root_in_order_and_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar.gz", tmp_path / "second.tar.gz"
    write_archive(folder, first, CHANGED_S)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    write_archive(folder, second, CHANGED_S)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        members = {member.name: member for member in tar}
    assert list(members)[:2] == [NAME, f"{NAME}/_internal"]
    assert {(member.uid, member.uname, member.mtime) for member in members.values()} == {(0, "root", CHANGED_S)}
    assert members[f"{NAME}/fleetbeat"].mode == 0o755


@needs_dpkg
def test_dpkg_reads_what_the_package_is(deb: Path) -> None:
    field = said("dpkg-deb", "--field", deb)
    assert "Package: fleetbeat-agent\nVersion: 9.9.9\nArchitecture: all\n" in field
    assert "Depends: libc6 (>= 2.31)\n" in field
    assert said("dpkg-deb", "--info", deb, "conffiles") == "/etc/fleetbeat/agent.yaml\n"
    listed = [line.split(None, 5) for line in said("dpkg-deb", "--contents", deb).splitlines()]
    assert {owner for _, owner, *_ in listed} == {"root/root"}
    modes = {place: mode for mode, *_, place in listed}
    assert modes["./usr/lib/fleetbeat-agent/fleetbeat"] == "-rwxr-xr-x"
    assert modes["./etc/fleetbeat/agent.yaml"] == "-rw-r--r--"
    assert "./usr/bin/fleetbeat -> ../lib/fleetbeat-agent/fleetbeat" in modes
    assert {mode for mode in modes.values() if mode[5] == "w" or mode[8] == "w"} <= {"lrwxrwxrwx"}


@needs_dpkg
def test_the_same_folder_makes_the_same_package(folder: Path, deb: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.deb"
    write_deb(folder, tmp_path / "work", Package("9.9.9", CHANGED_S, "all"), again)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(deb.read_bytes()).digest()


@needs_dpkg
def test_dpkg_installs_upgrades_and_purges_it_and_leaves_a_changed_config_alone(
    folder: Path, deb: Path, tmp_path: Path
) -> None:
    root = tmp_path / "host"
    (root / "var" / "lib" / "dpkg" / "updates").mkdir(parents=True)
    for name in ("status", "available"):
        (root / "var" / "lib" / "dpkg" / name).touch()
    # Not a whole system: no libc6, and the scripts run in this one, which they are told by DPKG_ROOT.
    dpkg = (
        "dpkg",
        f"--root={root}",
        "--force-script-chrootless,depends,not-root,bad-path",
        "--no-triggers",
        "--log=/dev/null",
    )
    said(*dpkg, "--install", deb)
    assert said(root / "usr" / "bin" / "fleetbeat") == "fleetbeat 9.9.9\n"
    unit = (root / "usr" / "lib" / "systemd" / "system" / f"{NAME}.service").read_text()
    assert "ExecStart=/usr/bin/fleetbeat agent --config /etc/fleetbeat/agent.yaml\n" in unit
    for line in said("dpkg-deb", "--info", deb, "md5sums").splitlines():
        digest, place = line.split("  ")
        assert hashlib.md5((root / place).read_bytes(), usedforsecurity=False).hexdigest() == digest
    config = root / "etc" / "fleetbeat" / "agent.yaml"
    config.write_text("node: {id: mine}\n")
    spool = root / "var" / "lib" / "private" / NAME / "spool"
    spool.mkdir(parents=True)

    newer = tmp_path / "newer.deb"
    write_deb(folder, tmp_path / "work", Package("9.9.10", CHANGED_S, "all"), newer)
    said(*dpkg, "--install", newer)
    assert config.read_text() == "node: {id: mine}\n"
    said(*dpkg, "--remove", NAME)
    assert not (root / "usr" / "lib" / NAME).exists()
    assert (config.exists(), spool.exists()) == (True, True)
    said(*dpkg, "--purge", NAME)
    assert (config.exists(), spool.exists()) == (False, False)


@needs_dpkg
def test_the_config_of_the_package_is_valid(deb: Path, tmp_path: Path) -> None:
    from agents.config import load_agent

    said("dpkg-deb", "--extract", deb, tmp_path / "out")
    assert len(load_agent(tmp_path / "out" / "etc" / "fleetbeat" / "agent.yaml").probes) == 1


@needs_dpkg
def test_it_says_what_is_new(deb: Path, tmp_path: Path) -> None:
    said("dpkg-deb", "--extract", deb, tmp_path / "out")
    docs = tmp_path / "out" / "usr" / "share" / "doc" / NAME
    assert b"Unreleased" in gzip.decompress((docs / "NEWS.gz").read_bytes())
    changes = gzip.decompress((docs / "changelog.gz").read_bytes()).decode()
    assert changes.startswith("fleetbeat-agent (9.9.9) unstable; ")
    assert changes.endswith("  Tue, 14 Nov 2023 22:13:20 +0000\n")


def test_a_command_that_is_not_for_hosts_is_answered_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        cause = ModuleNotFoundError("No module named 'streams'", name="streams.app")
        raise ImportError("Cannot import module") from cause

    monkeypatch.setattr(fleetbeat, "main", main)
    assert entry.main() == 2
    assert capsys.readouterr().err.startswith(
        "fleetbeat: this command needs streams, which is not in the agent's package"
    )


def test_a_library_that_is_really_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> int:
        raise ModuleNotFoundError("No module named 'fastavro'", name="fastavro")

    monkeypatch.setattr(fleetbeat, "main", main)
    with pytest.raises(ModuleNotFoundError):
        entry.main()


def test_a_file_is_checked_where_the_packages_of_other_files_are_missing(tmp_path: Path) -> None:
    from agents.check import KINDS
    from schemas.checking import check_file

    def missing() -> NoReturn:
        raise MissingPackageError("this command needs polars: install fleetbeat[streams]")

    rooms = (missing, lambda: KINDS)
    path = tmp_path / "file.yaml"
    path.write_text("node: {id: web-1}\n", encoding="utf-8")
    assert "agent" in check_file(path, rooms)
    path.write_text("kind: SLO\n", encoding="utf-8")
    with pytest.raises(MissingPackageError, match="polars"):
        check_file(path, rooms)


def test_without_the_simulated_fleet_an_agents_file_is_checked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package for hosts has no numpy."""
    from agents import check

    assert [kind.name for kind in check.KINDS] == ["agent", "simulate"]
    for module in [name for name in sys.modules if name.startswith("agents.simulate")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert [kind.name for kind in check._kinds()] == ["agent"]
