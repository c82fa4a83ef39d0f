"""What `fleetbeat check` says of bad files of agents, to the letter: beside each stands what it has to say."""

from pathlib import Path

import pytest

import fleetbeat

FOLDER = Path(__file__).parent / "bad_agents"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_mistake_of_a_bad_file_is_told_at_once_with_its_place_its_value_and_what_was_expected(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(FOLDER)
    assert fleetbeat.main(["check", file.name]) == 1
    assert capsys.readouterr().err == file.with_suffix(".txt").read_text(encoding="utf-8")


def test_there_are_a_dozen_of_them() -> None:
    assert len(FILES) >= 12
