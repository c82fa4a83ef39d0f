"""What is written for readers holds: links lead somewhere, examples are valid and listed, shown output is real."""

import doctest
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fleetbeat
from schemas.catalog import load_catalog
from streams.views.nodes import PATHS as NODE_PATHS
from streams.views.routes import SLO_PATHS
from tests.contract.surroundings import understood

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
MADE = {"__pycache__", "target"}  # by running Python's examples and building Java's
EXAMPLE_FILES = sorted(
    path for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".md" and MADE.isdisjoint(path.parts)
)


COMMAND = re.compile(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*bin/)?fleetbeat (?P<arguments>[^…]+)")
SHELL = {"|", ">", "<"}  # what follows is no argument


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("paper", PAPERS, ids=_shown)
def test_every_link_into_the_repository_leads_to_a_file(paper: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", paper.read_text(encoding="utf-8"))
    inside = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in inside if not (paper.parent / link).exists()] == []


@pytest.mark.parametrize("paper", PAPERS, ids=_shown)
def test_every_table_has_its_heading(paper: Path) -> None:
    """A blank line in the middle of one makes text of what follows."""
    blocks = re.findall(
        r"(?:^ *\|.*\n)+", re.sub(r"```.*?```", "", paper.read_text(encoding="utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    assert [block for block in blocks if not re.match(r".*\n *\|[-:| ]+\|\n", block)] == []


def test_every_page_is_named_where_the_documentation_begins() -> None:
    begin = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md") if path.parent.name != "adr"]
    assert [page for page in sorted(pages) if page != "README.md" and f"({page})" not in begin] == []


def test_every_benchmark_is_in_the_table_of_benchmarks() -> None:
    table = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("\n\nA benchmark starts")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    files = (ROOT / "tests" / "bench").glob("*.py")
    assert sorted(listed) == sorted(file.stem for file in files if file.stem != "__init__")


def test_every_decision_is_in_the_index_in_its_order() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^\| \[(\d+)\]\((.+?)\)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for _, name in listed] == sorted(path.name for path in folder.glob("0*.md"))
    assert [number for number, name in listed if not name.startswith(number)] == []


def test_every_view_is_in_the_table_of_views() -> None:
    """What the worker itself names at `/`, without the registry's paths, which stand in docs/producing.md."""
    table = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8").partition("## The views")[2]
    assert [path for path in (*SLO_PATHS, *NODE_PATHS) if f"`GET {path}`" not in table] == []


def _commands(text: str) -> Iterator[list[str]]:
    """The arguments of fleetbeat wherever a page shows how it is called: in code, written out."""
    fenced = False
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        fenced ^= line.lstrip().startswith("```")
        found = COMMAND.fullmatch(line) if fenced or line.startswith("    ") else None
        if found is not None:
            arguments = found["arguments"]
            while arguments.count('"') % 2:
                arguments += "\n" + next(lines)
            words = shlex.split(arguments, comments=True)
            yield words[: next((place for place, word in enumerate(words) if word in SHELL), None)]


@pytest.mark.parametrize("paper", PAPERS, ids=_shown)
def test_the_command_line_understands_every_command_that_is_shown(paper: Path) -> None:
    for arguments in _commands(paper.read_text(encoding="utf-8")):
        understood(arguments)


def test_the_new_version_that_contributors_are_shown_is_the_next_one() -> None:
    found = re.search(
        r"\{version: (?P<version>\d+), id: (?P<id>\d+), file: heartbeat\.v(?P=version)\.avsc\}",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    )
    assert found is not None
    catalog = load_catalog()
    greatest = max(version.id for _, version in catalog.schemas())
    assert (int(found["version"]), int(found["id"])) == (catalog.topic("heartbeats").latest.version + 1, greatest + 1)


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(.+?)\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [str(path.relative_to(EXAMPLES)) for path in EXAMPLE_FILES]


@pytest.mark.parametrize("example", [path for path in EXAMPLE_FILES if path.suffix == ".yaml"], ids=_shown)
def test_a_yaml_example_is_valid(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleetbeat.main(["check", str(example)]) == 0, capsys.readouterr().err


def test_the_refused_file_in_the_examples_is_answered_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (.+)$", text, re.MULTILINE)
    shown = re.findall(r"^broken\.yaml:.+$", text, re.MULTILINE)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    subprocess.run(commands[0], shell=True, check=True)  # noqa: S602 - our own paper
    assert fleetbeat.main(shlex.split(commands[1])[1:]) == 1
    assert capsys.readouterr().err.splitlines() == shown


def test_the_worked_example_of_the_slo_page_comes_out_as_shown() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "slo.md"), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 10
