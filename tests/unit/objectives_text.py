"""Objectives files made of texts, and what is wrong with them."""

from pathlib import Path

import pytest

from schemas.documents import DocumentError
from streams.config import load_objectives
from streams.core.objectives import Objective


@pytest.fixture
def slos(tmp_path: Path) -> Path:
    """Where the file is once there is one."""
    return tmp_path / "slos.yaml"


def load(slos: Path, text: str) -> tuple[Objective, ...]:
    slos.write_text(text, encoding="utf-8")
    return load_objectives(slos)


def problems(slos: Path, text: str) -> list[str]:
    """What is wrong with the text, without the file's folder."""
    with pytest.raises(DocumentError) as caught:
        load(slos, text)
    return [problem.removeprefix(f"{slos.parent}/") for problem in caught.value.problems]
