"""The rules of the house that neither ruff nor the import contracts can hold."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("agents", "infra", "schemas", "streams")
MAX_LINES = 400


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


SOURCES = [ROOT / "fleetbeat.py", ROOT / "fleetbeat_commands.py", *_sources(*ROOMS, "tests")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_one_line_that_says_what_it_is_and_is_short_enough_to_read(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_LINES, f"{lines} lines; expected at most {MAX_LINES}: split it by meaning"
    assert ast.get_docstring(ast.parse(text)), "no docstring; expected one line that says what the file is"


def test_no_room_has_a_drawer_for_everything() -> None:
    drawers = {"common", "helpers", "misc", "util", "utils"}
    found = [str(path.relative_to(ROOT)) for path in _sources(*ROOMS) if drawers & {path.stem, path.parent.name}]
    assert found == []


def test_every_room_is_a_typed_package() -> None:
    missing = [
        f"{room}/{name}" for room in ROOMS for name in ("__init__.py", "py.typed") if not (ROOT / room / name).exists()
    ]
    assert missing == []


def test_every_folder_with_code_is_a_package_so_that_import_contracts_see_it() -> None:
    folders = {path.parent for path in _sources(*ROOMS)}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("file", ["fleetbeat.py", "fleetbeat_commands.py"])
def test_the_command_line_imports_no_room_until_a_command_runs(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    early = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert early, "no imports found; expected some at the top"
    assert [line for line in early if line.split()[1].split(".")[0] in ROOMS] == []
