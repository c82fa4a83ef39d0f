"""One `up` a folder, and ports that are free."""

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import InfraError
from infra.state import AlreadyRunning, PortTaken, StateFolder, is_free, pick_port

HOLD = "import sys, time, pathlib; from infra.state import StateFolder; f = StateFolder(pathlib.Path(sys.argv[1]));"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_held_folder_names_its_holder_and_what_it_serves(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as held:
        held.announce({"Kafka": "127.0.0.1:19092", "views": "http://127.0.0.1:8080"})
        with pytest.raises(AlreadyRunning) as caught:
            StateFolder(tmp_path)
    assert str(caught.value) == (
        f"another fleetbeat (pid {os.getpid()}) runs in {tmp_path}, "
        "serving Kafka 127.0.0.1:19092, views http://127.0.0.1:8080; "
        "use that one, stop it (Ctrl-C there, or kill the pid), or give this one another state folder"
    )


def test_a_shorter_note_replaces_a_longer_one(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as held:
        held.announce({"Kafka": "127.0.0.1:19092"})
        held.announce({})
        with pytest.raises(AlreadyRunning, match=rf"\(pid {os.getpid()}\) runs in [^,]+; use that one"):
            StateFolder(tmp_path)


def test_a_released_folder_can_be_held_again(tmp_path: Path) -> None:
    StateFolder(tmp_path).release()
    StateFolder(tmp_path).release()


def test_a_killed_holder_leaves_the_folder_free(tmp_path: Path) -> None:
    code = f"{HOLD} print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}"):
            StateFolder(tmp_path)
        holder.kill()
    StateFolder(tmp_path).release()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfraError, match=r"cannot write the state folder .*/file/state: Not a directory"):
        StateFolder(tmp_path / "file" / "state")


def test_the_preferred_port_is_taken_when_free(taken_port: int) -> None:
    free = pick_port(None, None, "a test")
    assert is_free(free)
    assert pick_port(free, None, "Kafka") == free
    assert pick_port(taken_port, None, "Kafka") != taken_port
    assert pick_port(taken_port, free, "Kafka") == free


def test_a_port_that_nobody_listens_on_yet_is_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker and its controller had the same one now and then, and did not start."""
    monkeypatch.setattr("infra.state._FREE_PORTS", range(20_000, 20_300))
    monkeypatch.setattr("infra.state._given", deque(maxlen=1_000))
    given = [pick_port(None, None, "a test") for _ in range(60)]
    assert len(set(given)) == len(given)


def test_a_port_asked_for_by_number_is_never_replaced(taken_port: int) -> None:
    with pytest.raises(
        PortTaken, match=rf"^port {taken_port} on 127\.0\.0\.1, asked for Kafka, is taken; choose another"
    ):
        pick_port(19092, taken_port, "Kafka")
