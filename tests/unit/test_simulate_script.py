"""The script's file: what it may say, and the sentence for each thing it may not."""

from pathlib import Path

import pytest

from agents.simulate.config import ScriptError, load_script
from agents.simulate.script import Fault, Incident, Late, NodeFault, Script
from schemas.documents import DocumentError

ROOT = Path(__file__).parents[2]
EXAMPLES = [*sorted((ROOT / "examples" / "simulate").glob("*.yaml")), ROOT / "infra" / "demo" / "script.yaml"]


def write(folder: Path, text: str) -> Path:
    path = folder / "script.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_load(path: Path) -> None:
    assert load_script(path).series


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 1


def test_seconds_become_milliseconds_and_a_restart_is_a_death_of_no_length(tmp_path: Path) -> None:
    script = load_script(
        write(
            tmp_path,
            """
            incidents: [{from_s: 1.5, to_s: 2, latency_factor: 3}]
            faults:
              - {at_s: 1, do: restart, share: 0.5}
              - {at_s: 2, do: cut-off, count: 7, back_after_s: 0.25}
              - {at_s: 3, do: goodbye, count: 1, region: eu-1, zone: b}
            late: {share: 0.1, by_s: [0.5, 3]}
            repeat_every_s: 60
            """,
        )
    )
    assert script.incidents == (Incident(1_500, 2_000, None, None, 3.0, None),)
    assert script.faults == (
        NodeFault(1_000, Fault.DIE, None, 0.5, None, None, 0),
        NodeFault(2_000, Fault.CUT_OFF, 7, 0.0, None, None, 250),
        NodeFault(3_000, Fault.GOODBYE, 1, 0.0, "eu-1", "b", None),
    )
    assert script.late == Late(0.1, 500, 3_000)
    assert script.repeat_every_ms == 60_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("service: []\n", "1:1: service: unknown key"),
        ("services:\n  - {nme: a}\n", "2:6: services.0.nme: unknown key"),
        ("services: []\n", "1:1: services: value []: expected"),
        ("services:\n  - name: a\n    latency_ms: 0\n", "3:5: services.0.latency_ms: value 0: expected greater than 0"),
        ("services: [{name: a}, {name: a}]\n", "services ['a', 'a']: expected each name once"),
        ("incidents:\n  - {from_s: 5, to_s: 5, latency_factor: 2}\n", "to_s 5; expected more than from_s 5"),
        ("incidents:\n  - {from_s: 5, to_s: 6}\n", "changes nothing; expected latency_factor, failure_rate or both"),
        (
            "incidents:\n  - from_s: 5\n    to_s: 6\n    failure_rate: 1\n    service: chekout\n",
            "5:5: incidents.0.service: value 'chekout': expected one of ['cart', 'checkout', 'login',",
        ),
        (
            "faults:\n  - {at_s: 1, do: die, count: 1, region: mars}\n",
            "2:34: faults.0.region: value 'mars': expected one of ['ap-1', 'eu-1', 'us-1']",
        ),
        (
            "faults:\n  - {at_s: 1, do: die, count: 1, region: eu-1, zone: d}\n",
            "2:48: faults.0.zone: value 'd': expected one of ['a', 'b', 'c']",
        ),
        ("faults:\n  - {at_s: 1, do: die, count: 1, zone: b}\n", "zone 'b' without a region; expected the region"),
        (
            "faults:\n  - {at_s: 1, do: explode, count: 1}\n",
            "2:15: faults.0.do: value 'explode': expected 'die', 'goodbye'",
        ),
        ("faults:\n  - {at_s: 1, do: die}\n", "count and share: expected exactly one of them"),
        ("faults:\n  - {at_s: 1, do: die, count: 1, share: 0.1}\n", "count and share: expected exactly one of them"),
        ("faults:\n  - {at_s: 1, do: cut-off, count: 1}\n", "back_after_s missing; expected how long"),
        ("faults:\n  - {at_s: 1, do: restart, count: 1, back_after_s: 3}\n", "a restart is back at once"),
        ("late: {share: 0.1, by_s: [9, 3]}\n", "expected the shorter delay first"),
        ("late: {share: 2, by_s: [1, 3]}\n", "1:8: late.share: value 2: expected less than or equal to 1"),
        (
            "faults: [{at_s: 61, do: die, count: 1}]\nrepeat_every_s: 60\n",
            "repeat_every_s 60; expected at least 61, the script's last time",
        ),
    ],
)
def test_what_a_script_may_not_say_is_named_with_file_line_and_field(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DocumentError) as refused:
        load_script(path)
    assert problem in str(refused.value)
    assert str(refused.value).startswith(f"{path}:")


def test_all_strange_names_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "incidents: [{from_s: 0, to_s: 1, failure_rate: 1, service: x, region: y}]\n")
    with pytest.raises(DocumentError) as refused:
        load_script(path)
    assert len(refused.value.problems) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"gone\.yaml: no such file"):
        load_script(tmp_path / "gone.yaml")


def test_names_in_the_file_and_numbers_beside_it_contradict_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, "services: [{name: a}]\nregions: [{name: r}]\n")
    with pytest.raises(ScriptError, match="names its services"):
        load_script(path, services=3)
    with pytest.raises(ScriptError, match="names its services"):
        load_script(path, endpoints=3)
    with pytest.raises(ScriptError, match="names its regions"):
        load_script(path, regions=3)


def moments(script: Script, until_ms: int) -> list[int]:
    found = [-1]
    while (later := script.next_change_ms(found[-1])) is not None and later <= until_ms:
        found.append(later)
    return found[1:]


def test_the_moments_of_change_are_those_of_faults_and_the_edges_of_incidents() -> None:
    quiet = load_script(None)
    incident = Incident(20, 40, None, None, 2.0, None)
    script = Script(quiet.services, quiet.regions, (incident,), (NodeFault(30, Fault.DIE, 1, 0.0, None, None, None),))
    assert moments(script, 1_000) == [20, 30, 40]
    assert [script.incidents_at(now) for now in (19, 20, 39, 40)] == [(), (incident,), (incident,), ()]
    assert [len(script.faults_at(now)) for now in (29, 30, 31)] == [0, 1, 0]


def test_with_a_repetition_they_come_again() -> None:
    quiet = load_script(None)
    incident = Incident(80, 100, None, None, 2.0, None)
    fault = NodeFault(0, Fault.DIE, 1, 0.0, None, None, None)
    script = Script(quiet.services, quiet.regions, (incident,), (fault,), repeat_every_ms=100)
    assert moments(script, 300) == [0, 80, 100, 180, 200, 280, 300]
    assert [now for now in range(301) if script.faults_at(now)] == [0, 100, 200, 300]
    assert [bool(script.incidents_at(now)) for now in (79, 80, 99, 100, 179, 180, 199, 200)] == [
        False, True, True, False, False, True, True, False,
    ]  # fmt: skip
