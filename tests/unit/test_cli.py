"""The command line: quick to start, an example in every --help, one clear line instead of a traceback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

import fleetbeat
import fleetbeat_commands
from infra import InfraError
from schemas.documents import DocumentError

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "up",
    "agent",
    "probe",
    "simulate",
    "check",
    "bench",
    "version",
]
HEAVY = {
    "aiohttp",
    "aiokafka",
    "chdb",
    "clickhouse_connect",
    "fastavro",
    "faust",
    "numpy",
    "polars",
    "pyarrow",
    "pydantic",
}
START_S = 0.8


def _leaves(app: App, name: str = "") -> Iterator[str]:
    """Everything that can be run, as it is typed."""
    if app.default_command is not None:
        yield name
    for below in app:
        if not below.startswith("-"):
            yield from _leaves(app[below], f"{name} {below}".strip())


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def _cpu_s_of_help() -> float:
    """Processor time, which other work on the machine does not change much."""
    before = os.times()
    answer = _python("-m", "fleetbeat", "--help")
    after = os.times()
    assert answer.returncode == 0, answer.stderr
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_starts_quickly() -> None:
    # Most often the first try will do; a machine with ten times more to run than cores needs some.
    tries: list[float] = []
    while not tries or (tries[-1] >= START_S and len(tries) < 8):
        tries.append(_cpu_s_of_help())
    assert tries[-1] < START_S, tries


def test_no_help_loads_a_room_or_anything_heavy() -> None:
    code = (
        "import sys, fleetbeat\n"
        "for command in sys.argv[1:]:\n"
        "    assert fleetbeat.main([*command.split(), '--help']) == 0\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    answer = _python("-c", code, "", *COMMANDS)
    assert answer.returncode == 0, answer.stderr
    loaded = set(answer.stderr.split())
    assert "cyclopts" in loaded
    assert loaded & (HEAVY | fleetbeat.ROOMS) == set()


@pytest.mark.parametrize("command", sorted(_leaves(fleetbeat_commands.app)))
def test_every_command_shows_an_example_of_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleetbeat.main([*command.split(), "--help"]) == 0
    assert f"Example: fleetbeat {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nope", 'Unknown command "nope".'),
        ("up --nodes many", 'Invalid value for --nodes: unable to convert "many" into int.'),
        ("up --nodse 3", "Unknown option: --nodse. Did you mean --nodes?"),
        ("check", "check needs files, or --schema KIND, or --reference KIND; expected one of them"),
        ("bench nope", "no benchmark 'nope'; expected one of:"),
        ("agent --confg agent.yaml", "the following arguments are required: --config; `fleetbeat agent --help` shows"),
        ("agent --config nowhere.yaml", "nowhere.yaml: no such file; expected a YAML file"),
        ("worker --config nowhere.yaml", "nowhere.yaml: no such file; expected a YAML file"),
        ("worker", "--objectives: missing; expected an OpenSLO file there, or as `objectives` in --config"),
        ("archive --config nowhere.yaml", "nowhere.yaml: no such file; expected a YAML file"),
        ("probe home --config nowhere.yaml", "nowhere.yaml: no such file; expected a YAML file"),
        ("topics check --partitions 0", 'Invalid value "0" for --partitions. Must be >= 1.'),
        ("simulate --brokers a:b:c", "--brokers 'a:b:c': expected HOST:PORT, or several with commas between"),
        ("up --brokers nonsense", "--brokers 'nonsense': expected HOST:PORT, or several with commas between"),
        ("up --duration nan", "--duration: value nan; expected 0.001 to 2,592,000"),
        ("simulate --script nowhere.yaml", "nowhere.yaml: no such file; expected a YAML file"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line_with_status_2(
    arguments: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fleetbeat.main(arguments.split()) == 2
    told = capfd.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_missing_extra_is_named_with_status_2() -> None:
    code = "import sys; sys.modules['faust'] = None; import fleetbeat; sys.exit(fleetbeat.main(sys.argv[1:]))"
    answer = _python("-c", code, "worker", "--objectives", "slos.yaml", "--state", "nowhere")
    assert answer.stderr == "fleetbeat: this command needs faust: install fleetbeat[streams]\n"
    assert answer.returncode == 2


def test_a_room_that_does_not_import_is_a_bug_and_not_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"streams\.nowhere"), fleetbeat_commands._extra("streams"):
        __import__("streams.nowhere")


def test_an_error_of_our_own_is_one_sentence_and_any_other_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_with(cause: Exception) -> None:
        def fail(_: object) -> None:
            raise cause

        monkeypatch.setattr(fleetbeat_commands, "app", fail)

    fail_with(DocumentError(["slos.yaml:3:1: kind: missing; expected a value"]))
    assert fleetbeat.main([]) == 2
    assert capsys.readouterr().err == "fleetbeat: slos.yaml:3:1: kind: missing; expected a value\n"
    fail_with(InfraError("port 9092 is taken; choose another"))
    assert fleetbeat.main([]) == 1
    assert capsys.readouterr().err == "fleetbeat: port 9092 is taken; choose another\n"
    fail_with(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        fleetbeat.main([])


SLOS = str(ROOT / "infra" / "demo" / "slos.yaml")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["check", SLOS, SLOS], ["check", "--schema", "agent"]])
@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        pytest.param("| true", 141, "", id="nobody reads"),
        pytest.param("> /dev/full", 1, "fleetbeat: cannot write: No space left on device\n", id="the disk is full"),
        pytest.param(">&-", 0, "", id="no output at all"),
    ],
)
def test_output_that_nobody_takes_is_no_bug(
    arguments: list[str], output: str, status: int, said: str, unbuffered: str
) -> None:
    # The reader has left before anything is written.
    script = f'(sleep 0.3; exec "$@") {output}; exit ${{PIPESTATUS[0]}}'
    answer = subprocess.run(
        ["bash", "-c", script, "", sys.executable, "-m", "fleetbeat", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (status, said)


def test_a_broken_pipe_elsewhere_keeps_its_traceback() -> None:
    code = (
        "import fleetbeat, fleetbeat_commands as c\ndef app(_): raise BrokenPipeError\nc.app = app\nfleetbeat.main([])"
    )
    answer = _python("-c", code)
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr


def test_ctrl_c_while_a_command_is_loaded_is_no_traceback() -> None:
    code = "import fleetbeat, fleetbeat_commands as c\ndef app(_): raise KeyboardInterrupt\nc.app = app\n"
    answer = _python("-c", f"{code}raise SystemExit(fleetbeat.main([]))")
    assert (answer.returncode, answer.stderr) == (130, "")


def test_check_says_what_good_files_hold(capsys: pytest.CaptureFixture[str]) -> None:
    slos, script = ROOT / "infra" / "demo" / "slos.yaml", ROOT / "infra" / "demo" / "script.yaml"
    assert fleetbeat.main(["check", str(slos), str(script)]) == 0
    assert capsys.readouterr().out == f"{slos}: good, 8 objectives\n{script}: good, a script for simulate\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "kind: SLA\n",
            ":1:1: kind: value 'SLA': not supported; expected SLO, SLI, Service, AlertPolicy or AlertCondition",
        ),
        ("faults:\n  - {at_s: 3, do: explode, count: 1}\n", ":2:15: faults.0.do: value 'explode': expected 'die'"),
        ("late: {share: 2, by_s: [0, 1]}\n", ":1:8: late.share: value 2: expected less than or equal to 1"),
        ("faults: []\nnodes: 3\n", ":2:1: nodes: unknown key (value 3)"),
        ("a: [\n", ":2:1: not YAML:"),
        (
            "greeting: hello\n",
            ": nothing to check; expected objectives (kind: SLO), a worker, an archive, TLS and the user for Kafka, ",
        ),
        ("", ": nothing to check; expected objectives"),
    ],
)
def test_check_says_where_a_bad_file_is_wrong_and_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text, encoding="utf-8")
    assert fleetbeat.main(["check", str(file)]) == 1
    assert f"{file}{said}" in capsys.readouterr().err


def test_check_goes_on_after_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ROOT / "infra" / "demo" / "slos.yaml"
    assert fleetbeat.main(["check", str(tmp_path / "nowhere.yaml"), str(good)]) == 1
    told = capsys.readouterr()
    assert told.err == f"{tmp_path}/nowhere.yaml: no such file; expected a YAML file\n"
    assert told.out == f"{good}: good, 8 objectives\n"
