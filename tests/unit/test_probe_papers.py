"""docs/probes.md names every setting of the built-in kinds, and every reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from agents.probes.base import FORBIDDEN_TARGET, ProbeKind
from agents.probes.registry import probe_kinds
from agents.probes.resolver import NO_SUCH_NAME, RESOLVE_FAILED
from agents.probes.watch import _REASONS

ROOT = Path(__file__).parents[2]
PAPER = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")


ENDINGS = {"down", "fail", "invalid", "refuse", "ProbeFailedError", "ProbeInvalidError"}


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table below a heading."""
    section = PAPER.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith(("| `", "| |")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def settings() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    kind = ""
    for first, second, *_ in rows("Kinds"):
        kind = first.strip("`") or kind
        found.setdefault(kind, set()).update(re.findall(r"`(\w+)`", second))
    return found


@pytest.mark.parametrize("kind", probe_kinds().values(), ids=lambda kind: kind.name)
def test_every_setting_of_a_kind_is_in_the_table_and_no_other(kind: ProbeKind[BaseModel]) -> None:
    assert settings()[kind.name] == set(kind.config.model_fields)


def test_every_reason_is_in_the_table_and_no_other() -> None:
    listed = {reason for first, *_ in rows("Outcomes") for reason in re.findall(r"`([\w-]+)`", first)}
    assert listed == set(_raised()) | set(_REASONS.values()) | {FORBIDDEN_TARGET, NO_SUCH_NAME, RESOLVE_FAILED}


def _raised() -> Iterator[str]:
    """What stands in the code as a reason: in what ends a run as Down, or is kept for that."""
    for path in (ROOT / "agents" / "probes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in ENDINGS:
                yield from _texts(node.args[0])
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
                yield from _texts(node.value)


def _texts(node: ast.AST) -> Iterator[str]:
    return (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))
