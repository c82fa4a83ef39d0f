"""requirements.lock: every package pinned and hashed, in step with pyproject.toml, no address of any machine."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")

# name==version, perhaps a marker, then hashes on continued lines.
ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s\\]+)( ; [^\\\n]+)?"
    r"(?P<hashes>( \\\n +--hash=sha256:[0-9a-f]{64})+)\n",
    re.MULTILINE,
)
# URLs, options such as --index-url or --find-links, and absolute paths.
ADDRESS = re.compile(r"\S*://\S*|^\s*-(?!-hash=)\S+|(?<![\w.])/\S+", re.MULTILINE)


def _asked_for() -> list[str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "all" for line in lines]
    return [
        *project["dependencies"],
        *extras,
        *document["dependency-groups"]["dev"],
        *document["build-system"]["requires"],
    ]


def test_every_line_belongs_to_an_entry_with_a_version_and_hashes() -> None:
    rest = ENTRY.sub("", LOCK)
    assert [line for line in rest.splitlines() if not line.startswith("#")] == []
    assert len(ENTRY.findall(LOCK)) > 50


def test_it_names_no_registry_and_no_path() -> None:
    assert ADDRESS.findall(LOCK) == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url x",
        "--find-links x",
        "uv @ https://h/uv.whl",
        "-e /home/me/fleetbeat",
        "#   uv -o /tmp/lock",
        "-f x",
    ],
)
def test_the_search_for_addresses_finds_one(line: str) -> None:
    assert ADDRESS.search(f"attrs==1\n{line}\n")


@pytest.mark.parametrize("line", sorted(set(_asked_for())))
def test_it_satisfies_what_pyproject_asks_for(line: str) -> None:
    wanted = Requirement(line)
    name = canonicalize_name(wanted.name)
    locked = [entry["version"] for entry in ENTRY.finditer(LOCK) if canonicalize_name(entry["name"]) == name]
    assert locked, f"{wanted.name} is not in requirements.lock; expected it there: run `make lock`"
    assert [version for version in locked if version not in wanted.specifier] == []
