"""Options of `fleetbeat worker` that cannot be meant are refused before anything is started."""

import socket
from pathlib import Path

import pytest

from streams.app import run_worker
from streams.options import CannotStartError, OptionError, WorkerOptions
from tests.integration.worker_process import Promise, write_objectives


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"advertise": "host"}, "--advertise: value 'host': expected HOST:PORT, such as 10.0.0.7:8080"),
        ({"advertise": "http://host:8080"}, "--advertise: value 'http://host:8080': expected HOST:PORT"),
        ({"stall_after_s": 0.0}, "--stall-after: value 0.0; expected seconds, more than 0"),
        ({"stall_after_s": float("nan")}, "--stall-after: value nan; expected seconds"),
        ({"history": "ch:8123"}, "--history: url 'ch:8123': expected http://HOST:PORT"),
        ({"nodes_max": -1}, "--nodes-max: value -1; expected 1 to 100000000"),
        ({"nodes_new_per_minute": 0}, "--nodes-new-per-minute: value 0; expected 1 to 100000000"),
        ({"series_max": 0}, "--series-max: value 0; expected 1 to 500000"),
        ({"series_max": 500_001}, "--series-max: value 500001; expected 1 to 500000"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(tmp_path: Path, option: dict[str, object], says: str) -> None:
    objectives = write_objectives(tmp_path / "slos.yaml", [Promise("all")])
    state = tmp_path / "state"
    with pytest.raises(OptionError) as refused:
        run_worker(WorkerOptions("127.0.0.1:9", objectives, "127.0.0.1:0", state, **option))  # type: ignore[arg-type]
    assert str(refused.value).startswith(says)
    assert not state.exists()


def test_a_port_that_is_taken_is_told_before_kafka_is_asked_or_told_anything(tmp_path: Path) -> None:
    objectives = write_objectives(tmp_path / "slos.yaml", [Promise("all")])
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(CannotStartError, match=f"^--listen {listen}: .*address already in use"):
            run_worker(WorkerOptions("127.0.0.1:9", objectives, listen, tmp_path / "state"))
