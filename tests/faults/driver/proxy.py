"""A network between one worker and the broker that can be slow, deaf in one direction, or broken: a TCP proxy."""

import asyncio
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from infra.kafka import LocalKafka
from infra.state import LOOPBACK
from tests.conftest import START_S
from tests.ports import free_port

Way = Literal["up", "down"]  # to the broker, from the broker
# To the one side, to the other, to both.
DEAF: tuple[frozenset[Way], ...] = (frozenset({"up"}), frozenset({"down"}), frozenset({"up", "down"}))
CHUNK_BYTES = 64 << 10
HELD_POLL_S = 0.02
# Closed with a lingering time of 0, a socket sends RST.
RESET = struct.pack("ii", 1, 0)


class FarKafka(LocalKafka):
    """A broker with a second address, for clients behind a proxy: whoever asks there is told of the proxy only."""

    def __init__(self, state_dir: Path, *, port: int | None = None, heap_mb: int = 512) -> None:
        super().__init__(state_dir, port=port, heap_mb=heap_mb, start_timeout_s=START_S)
        self.far_host = LOOPBACK
        self.far_port = free_port()
        self.proxy_port = free_port()

    def _write_config(self, data: Path) -> Path:
        target = super()._write_config(data)
        lines = target.read_text(encoding="utf-8").splitlines()
        added = {
            "listeners": f"{LOOPBACK}:{self.far_port}",
            "advertised.listeners": f"{self.far_host}:{self.proxy_port}",
        }
        for place, line in enumerate(lines):
            name, _, value = line.partition("=")
            if name in added:
                lines[place] = f"{name}={value},FAR://{added[name]}"
        lines.append("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,FAR:PLAINTEXT")
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return target


class Proxy:
    """Runs on a thread of its own while its context lasts; what is set on it is true for all its connections.

    What is held back arrives later, as lost packets do that TCP sends again.
    """

    def __init__(self, port: int, target: int, listener: socket.socket | None = None) -> None:
        """`listener`: where it listens, when that is elsewhere than on loopback."""
        self.delay_s = 0.0
        self.held: frozenset[Way] = frozenset()
        self.port = port
        self._target = target
        self._listener = listener
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def address(self) -> str:
        host = LOOPBACK if self._listener is None else self._listener.getsockname()[0]
        return f"{host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        where: Any = {"sock": self._listener} if self._listener else {"host": LOOPBACK, "port": self.port}
        starting = asyncio.start_server(self._accept, **where)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> None:
        """RST to both ends of every connection."""
        self._loop.call_soon_threadsafe(self._reset)

    def _reset(self) -> None:
        for writer in self._writers:
            sock: socket.socket = writer.get_extra_info("socket")
            if sock.fileno() >= 0:  # else the other end was quicker
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        self.delay_s, self.held = 0.0, frozenset()
        self._reset()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)

    async def _accept(self, near: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            far, questions = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:  # the broker is down: so is whoever asks for it
            answers.transport.abort()
            return
        self._writers |= {answers, questions}
        try:
            await asyncio.gather(self._carry(near, questions, "up"), self._carry(far, answers, "down"))
        finally:
            self._writers -= {answers, questions}
            answers.transport.abort()
            questions.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while way in self.held:  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(HELD_POLL_S)
                writer.write(chunk)
                await writer.drain()
            writer.close()
        except OSError:
            writer.transport.abort()
