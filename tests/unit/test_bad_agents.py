"""What `fleetbeat check` says of bad files of agents, workers and archives, to the letter: it stands beside each."""

from collections import Counter
from pathlib import Path

import pytest

import fleetbeat

FOLDERS = [Path(__file__).parent / name for name in ("bad_agents", "bad_servers")]
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_mistake_of_a_bad_file_is_told_at_once_with_its_place_its_value_and_what_was_expected(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)
    assert fleetbeat.main(["check", file.name]) == 1
    assert capsys.readouterr().err == file.with_suffix(".txt").read_text(encoding="utf-8")


def test_there_are_a_dozen_of_agents_and_some_of_each_server() -> None:
    kinds = Counter(file.parent.name if file.parent == FOLDERS[0] else file.name.split("-")[0] for file in FILES)
    assert (kinds["bad_agents"] >= 12, kinds["worker"] >= 5, kinds["archive"] >= 4) == (True, True, True)
