"""docs/reference is what the definitions in the code say; `make reference` writes it anew."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

import fleetbeat
from schemas.checking import json_schema
from schemas.reference import reference

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("kind", ["agent", "worker", "archive"])
@pytest.mark.parametrize(("option", "ending"), [("--schema", "schema.json"), ("--reference", "md")])
def test_what_is_written_for_editors_and_readers_is_what_the_code_says(
    option: str, kind: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleetbeat.main(["check", option, kind]) == 0
    assert capsys.readouterr().out == (FOLDER / f"{kind}.{ending}").read_text(encoding="utf-8"), (
        "`make reference` writes it anew"
    )


class Inner(BaseModel):
    """What it is for."""

    much: float = Field(ge=1, lt=10, description="How much.")
    mood: str | None = None


class Outer(BaseModel):
    """All of it."""

    inner: list[Inner] = []
    count: int = Field(3, ge=0)


def test_a_page_has_a_table_for_every_mapping_and_a_row_for_every_key() -> None:
    page = reference(json_schema(Outer), "a thing")
    assert page.splitlines()[0] == "# The file of a thing: every key"
    assert "| `inner` | list of keys of its own, below | — |  |" in page
    assert "| `count` | whole number, from 0 | `3` |  |" in page
    assert "## `inner[]`\n\nWhat it is for.\n" in page
    assert "| `much` | number, 1 to below 10 | **needed** | How much. |" in page
    assert "| `mood` | text or `null` | — |  |" in page


def test_a_kind_of_file_without_a_schema_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert fleetbeat.main(["check", "--schema", "objectives"]) == 2
    assert "no schema 'objectives'; expected one of: worker, archive, kafka, agent, simulate" in capsys.readouterr().err
