"""The driver's own parts: a network that breaks as it is told to, and the table as files."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.state import LOOPBACK
from tests.faults.driver.outcome import Outcome, table, write
from tests.faults.driver.proxy import Proxy
from tests.integration.worker_process import eventually
from tests.ports import free_port


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says everything again."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def serve(talk: socket.socket) -> None:
            with talk:
                try:
                    while said := talk.recv(1_024):
                        talk.sendall(said)
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    talk, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(talk,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(free_port(), echo) as proxy:
        yield proxy


@pytest.fixture
def talk(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, proxy.port), timeout=60) as talk:
        talk.sendall(b"hello")
        assert talk.recv(5) == b"hello"
        yield talk


@pytest.mark.parametrize("way", ["up", "down"])
def test_what_is_held_back_arrives_later(proxy: Proxy, talk: socket.socket, way: str) -> None:
    proxy.held = frozenset({way})  # type: ignore[arg-type]
    talk.sendall(b"one")
    talk.settimeout(0.2)
    with pytest.raises(TimeoutError):
        talk.recv(3)
    proxy.held = frozenset()
    talk.settimeout(60)
    assert talk.recv(3) == b"one"


def test_a_delay_is_felt_in_both_directions(proxy: Proxy, talk: socket.socket) -> None:
    proxy.delay_s = 0.1
    begun = time.monotonic()
    talk.sendall(b"two")
    assert talk.recv(3) == b"two"
    assert time.monotonic() - begun >= 0.2


def test_a_reset_is_one_and_the_next_connection_works(proxy: Proxy, talk: socket.socket) -> None:
    proxy.reset()

    def is_reset() -> bool:
        try:
            talk.sendall(b"three")
            return talk.recv(5) == b""
        except ConnectionResetError:
            return True

    eventually(is_reset, "a reset")
    with socket.create_connection((LOOPBACK, proxy.port), timeout=60) as again:
        again.sendall(b"four")
        assert again.recv(4) == b"four"


OUTCOMES = [
    Outcome(2, "worker killed", 7, 20, 1_000, 0, 0, 3.25, 3_000, 200, ()),
    Outcome(4, "worker frozen", 8, 1, 900, 2, 1, 4.0, 3_000, 90, ("checkout at 1: total is 2; the ledger has 3",)),
]


def test_the_table_ends_with_the_verdict_and_the_seed() -> None:
    head, *rows = table(OUTCOMES).splitlines()
    assert head.split()[-2:] == ["verdict", "seed"]
    assert [row.split()[-2:] for row in rows] == [["exact", "7"], ["FAILED", "8"]]


def test_a_table_can_be_read_back_and_shown_as_markdown(tmp_path: Path) -> None:
    write(OUTCOMES, tmp_path / "faults.json")
    assert Outcome.read(tmp_path / "faults.json") == OUTCOMES
    write(OUTCOMES, tmp_path / "faults.md")
    assert "| 4 | worker frozen | 1 | 900 | 2 | 1 | 4.0 | FAILED | 8 |" in (tmp_path / "faults.md").read_text()
