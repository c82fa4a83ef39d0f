"""docs/probes.md names every setting of the built-in kinds, and every reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from agents.probes.base import FORBIDDEN_TARGET, ProbeKind
from agents.probes.http_settings import Expected
from agents.probes.registry import probe_kinds
from agents.probes.resolver import NO_SUCH_NAME, RESOLVE_FAILED
from agents.probes.watch import _REASONS

ROOT = Path(__file__).parents[2]
PAPER = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")


VALIDATORS = {"invalid", "refuse", "ProbeInvalidError"}
TRANSPORT = {"down", "fail", "ProbeFailedError"}


def rows(header: str) -> Iterator[list[str]]:
    """The cells of the table whose first line begins so."""
    _, found, after = PAPER.partition(f"\n{header}")
    assert found, header
    for line in after.partition("\n\n")[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def words(cells: Iterator[str]) -> set[str]:
    return {word for cell in cells for word in re.findall(r"`([\w-]+)`", cell)}


def settings() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    kind = ""
    for first, second, *_ in rows("| kind | setting |"):
        kind = first.strip("`") or kind
        found.setdefault(kind, set()).update(words(iter([second])))
    return found


@pytest.mark.parametrize("kind", probe_kinds().values(), ids=lambda kind: kind.name)
def test_every_setting_of_a_kind_is_in_the_table_and_no_other(kind: ProbeKind[BaseModel]) -> None:
    assert settings()[kind.name] == set(kind.config.model_fields)


def test_all_that_can_be_expected_of_an_http_answer_is_in_the_table_and_no_other() -> None:
    assert words(first for first, *_ in rows("| in `expect` |")) == set(Expected.model_fields)


def test_every_validator_is_in_its_table_and_no_other() -> None:
    assert words(first for first, *_ in rows("| validator |")) == set(_raised(VALIDATORS))


def test_every_reason_is_in_its_table_and_no_other() -> None:
    found = set(_raised(TRANSPORT)) | set(_REASONS.values()) | {FORBIDDEN_TARGET, NO_SUCH_NAME, RESOLVE_FAILED}
    assert words(first for first, *_ in rows("| reason |")) == found


def _raised(endings: set[str]) -> Iterator[str]:
    """What stands in the code as a reason: in what ends a run as Down, or is kept for that."""
    for path in (ROOT / "agents" / "probes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in endings:
                yield from _texts(node.args[0])
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason" and endings is TRANSPORT:
                yield from _texts(node.value)


def _texts(node: ast.AST) -> Iterator[str]:
    return (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))
