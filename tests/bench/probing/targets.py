"""A web server for probers: one process, one loop, a few system calls a request, and its own time for each.

It answers `GET /DELAY_MS/NUMBER` with 200 after so many ms and closes. How long that took, from reading the request
until it had written the answer, it writes down by number; with the end of its standard input it prints them all.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BACKLOG = 4_096
HOSTS = 16
"""Each prober asks 127.0.0.1 to 127.0.0.16 in turn: many places to connect to, and enough ports for all of them."""


@dataclass(slots=True)
class Asked:
    """A request that is to be answered at `due_ns`."""

    client: socket.socket
    number: int
    read_ns: int
    due_ns: int


class Targets:
    """The server's process; `tell` ends it."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.port = port

    def url(self, number: int, delay_ms: int) -> str:
        """Where target `number` answers after so many ms."""
        return f"http://127.0.0.{1 + number % HOSTS}:{self.port}/{delay_ms}/{number}"

    def tell(self) -> dict[int, list[int]]:
        """Ends the server: by number, how many µs each of its answers took, in the order of the requests."""
        told, _ = self._process.communicate(timeout=60)
        return {int(number): took_us for number, took_us in json.loads(told).items()}


@contextmanager
def serving() -> Iterator[Targets]:
    """A server of its own; it stays on the cores of whoever starts it."""
    command = [sys.executable, "-P", "-m", "tests.bench.probing.targets"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            yield Targets(process, int(process.stdout.readline()))
        finally:
            process.kill()


class _Server:
    def __init__(self) -> None:
        self._listener = socket.create_server(("0.0.0.0", 0), backlog=BACKLOG)
        self._listener.settimeout(0)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._clients: dict[int, socket.socket] = {}
        # By delay, so that each line is in order of its times.
        self._waiting: defaultdict[int, deque[Asked]] = defaultdict(deque)
        self._took_us: defaultdict[int, list[int]] = defaultdict(list)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def run(self) -> dict[int, list[int]]:
        """Until standard input ends."""
        self._poll.register(0, select.EPOLLIN)
        while True:
            for descriptor, _ in self._poll.poll(self._patience_s()):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == 0:
                    return self._took_us
                else:
                    self._read(descriptor)
            self._answer_due()

    def _patience_s(self) -> float | None:
        due_ns = min((line[0].due_ns for line in self._waiting.values() if line), default=None)
        return None if due_ns is None else max(0, due_ns - time.monotonic_ns()) / 1e9

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(0)
                self._clients[client.fileno()] = client
                self._poll.register(client, select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        """The whole request: those of probers fit into one packet."""
        read_ns = time.monotonic_ns()
        client = self._clients.pop(descriptor)
        self._poll.unregister(descriptor)
        try:
            words = client.recv(4_096).split(b" ", 2)
            _, delay_ms, number = words[1].split(b"/")
        except (OSError, ValueError, IndexError):  # it went away, or is no prober
            client.close()
            return
        asked = Asked(client, int(number), read_ns, read_ns + int(delay_ms) * 1_000_000)
        if delay_ms == b"0":
            self._answer(asked)
        else:
            self._waiting[int(delay_ms)].append(asked)

    def _answer_due(self) -> None:
        for line in self._waiting.values():
            while line and line[0].due_ns <= time.monotonic_ns():
                self._answer(line.popleft())

    def _answer(self, asked: Asked) -> None:
        with suppress(OSError), asked.client:
            asked.client.send(ANSWER)
            self._took_us[asked.number].append((time.monotonic_ns() - asked.read_ns) // 1_000)


if __name__ == "__main__":
    server = _Server()
    print(server.port, flush=True)
    print(json.dumps(server.run()))
