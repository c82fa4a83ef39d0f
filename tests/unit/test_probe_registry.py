"""The registry of probe kinds: built-in ones imported only when asked for, plugins that work and that do not."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.probes.registry import PluginError, UnknownKindError, probe_kind, probe_kind_names, probe_kinds

BUILT_IN = ["disk", "dns", "http", "icmp", "process", "tcp", "tls"]

PLUGIN = """
from agents.probes.base import ProbeKind, Settings, Up

class Always:
    def __init__(self, config): pass
    async def run(self, deadline_s): return Up(0)

KIND = ProbeKind("always", Settings, Always)
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a distribution of one module and one entry point importable, as an installer would."""

    def one(distribution: str, entry: str, code: str = PLUGIN, version: str = "1.2") -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[fleetbeat.probes]\n{entry}\n")
        (folder / f"{distribution}_plugin.py").write_text(code)
        monkeypatch.delitem(sys.modules, f"{distribution}_plugin", raising=False)
        monkeypatch.syspath_prepend(str(folder))

    return one


def test_every_built_in_kind_is_there_under_its_name() -> None:
    assert probe_kind_names() == BUILT_IN
    assert {name: kind.name for name, kind in probe_kinds().items()} == {name: name for name in BUILT_IN}


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownKindError, match="probe kind 'htpp'; expected one of: disk, dns, http, icmp, process, tcp, tls"
    ):
        probe_kind("htpp")


def test_a_plugin_is_found_by_its_entry_point(install: Install) -> None:
    install("always", "always = always_plugin:KIND")
    assert probe_kind("always").name == "always"
    assert "always" in probe_kind_names()
    assert "always" in probe_kinds()


@pytest.mark.parametrize(
    ("entry", "code", "complaint"),
    [
        pytest.param(
            "always = nowhere:KIND",
            PLUGIN,
            r"always 1\.2: probe kind 'always' cannot be loaded from nowhere:KIND: ModuleNotFound",
            id="a module that is not there",
        ),
        pytest.param("always = always_plugin:KIND", "1/0", r"always 1\.2: .*: ZeroDivision", id="no module to import"),
        pytest.param("always = always_plugin:Always", PLUGIN, "expected ProbeKind", id="something that is no kind"),
        pytest.param("other = always_plugin:KIND", PLUGIN, "expected ProbeKind.name='other'", id="another name"),
    ],
)
def test_a_broken_plugin_is_an_error_that_names_its_distribution(
    entry: str, code: str, complaint: str, install: Install
) -> None:
    install("always", entry, code)
    with pytest.raises(PluginError, match=complaint):
        probe_kind(entry.partition(" ")[0])
    assert probe_kind("tcp").name == "tcp"  # the others work


def test_two_plugins_of_one_name_are_refused(install: Install) -> None:
    install("always", "always = always_plugin:KIND")
    install("ever", "always = ever_plugin:KIND")
    with pytest.raises(PluginError, match=r"offered by always 1\.2 and ever 1\.2; expected one"):
        probe_kind("always")


def test_a_plugin_cannot_take_the_place_of_a_built_in_kind(install: Install) -> None:
    install("always", "http = always_plugin:KIND")
    assert probe_kind("http").config.__name__ == "HttpConfig"
    with pytest.raises(PluginError, match=r"always 1\.2: probe kind 'http' is built in; expected another name"):
        probe_kinds()


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("http", {"dns", "psutil", "re2", "aiohttp", "rich", "cyclopts", "requests"}),
        ("disk", {"dns", "psutil", "httptools", "aiohttp"}),
        ("process", {"dns", "httptools", "aiohttp"}),
    ],
)
def test_a_kind_imports_only_what_it_needs(kind: str, absent: set[str]) -> None:
    code = f"import sys; from agents.probes.registry import probe_kind; probe_kind({kind!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert absent & set(done.stdout.split()) == set()


def test_only_two_modules_open_sockets() -> None:
    """What is connected to, or pinged, has been checked, because there is no other way out."""
    room = Path(__file__).parents[2] / "agents"
    ways = {"create_connection", "create_datagram_endpoint", "getaddrinfo", "open_connection", "sock_connect", "socket"}
    assert {
        path.name for part in ("probes", "scrape") for path in (room / part).rglob("*.py") if ways & _calls(path)
    } == {"dial.py", "ping.py"}


def _calls(path: Path) -> set[str]:
    """The names that a file uses as functions."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return {node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func) for node in calls}
