"""`fleetbeat dlq` on the command line: light, with examples, and clear about what it cannot do."""

import subprocess
import sys
from pathlib import Path

import pytest

import fleetbeat
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
HEAVY = {"aiohttp", "aiokafka", "fastavro", "faust", "numpy", "polars", "pyarrow", "pydantic"}


@pytest.mark.parametrize("command", ["list", "show", "replay"])
def test_every_command_shows_an_example_of_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleetbeat.main(["dlq", command, "--help"]) == 0
    assert f"Example: fleetbeat dlq {command}" in capsys.readouterr().out


def test_its_help_loads_nothing_heavy_and_the_help_of_others_nothing_of_it() -> None:
    code = (
        "import sys, fleetbeat\n"
        "assert fleetbeat.main(['--help']) == fleetbeat.main(['topics', 'check', '--help']) == 0\n"
        "assert 'infra.dlq' not in sys.modules\n"
        "assert fleetbeat.main(['dlq', 'replay', '--help']) == 0\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert set(answer.stderr.split()) & HEAVY == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("list --since yesterday", "--since 'yesterday': expected an age such as 90s"),
        ("list --limit 0", 'Invalid value "0" for --limit. Must be >= 1.'),
        ("show probe-results", "'probe-results': expected TOPIC/PARTITION/OFFSET, as in probe-results/3/1200"),
        ("replay --schema-id 901", "--schema-id '901': expected FOUND=RIGHT, as in 901=2"),
        ("replay --nope", "Unknown option: --nope."),
        ("list --brokers nowhere", "brokers 'nowhere': expected HOST:PORT, or several with commas between"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line_with_status_2(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleetbeat.main(["dlq", *arguments.split()]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = "import sys; sys.modules['polars'] = None; import fleetbeat; sys.exit(fleetbeat.main(sys.argv[1:]))"
    answer = subprocess.run(
        [sys.executable, "-c", code, "dlq", "list"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stderr == "fleetbeat: this command needs polars: install fleetbeat[streams]\n"
    assert answer.returncode == 2


def test_a_cluster_that_does_not_answer_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert fleetbeat.main(["dlq", "list", "--brokers", address]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fleetbeat: cannot reach Kafka at {address}; is a broker running there? (")
    assert said.count("\n") == 1
