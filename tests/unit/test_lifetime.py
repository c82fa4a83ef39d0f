"""A worker that is told to end ends, whatever hangs; each hangs in a process of its own."""

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from streams.engine import lifetime
from streams.engine.lifetime import start_app, stop_app

_HEAD = """
import asyncio, threading, time
from streams.engine import lifetime
from streams.logs import configure_logs
configure_logs()

class Hanging:
    async def stop(self):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass  # as Faust's wait for polls in hand does
"""
HANGS = {
    "Faust passes over being cancelled": """
lifetime.STOP_APP_S = 0.1
asyncio.run(lifetime.stop_app(Hanging()))
""",
    "a thread stands still": """
threading.Thread(target=threading.Event().wait, name="stuck").start()
lifetime.end_within(0.1)
""",
    "the event loop stands still": """
lifetime.end_within(0.1)
threading.Event().wait()
""",
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_process_that_hangs_at_its_end_ends_with_status_1_and_says_where_it_stood(hang: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + HANGS[hang]], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1, done.stderr
    said: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    assert "ending where it stands" in said["event"]
    assert "MainThread" in said["threads"]


def test_a_process_that_ends_in_time_keeps_its_status() -> None:
    script = _HEAD + "lifetime.end_within(90)\nraise SystemExit(7)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (7, "")


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Within how many seconds the process would have ended; this one is not to."""
    told: list[float] = []
    monkeypatch.setattr(lifetime, "end_within", told.append)
    return told


def test_a_stop_does_not_wait_for_a_start_that_does_not_end(armed: list[float]) -> None:
    async def run() -> bool:
        stop = asyncio.Event()
        app: Any = SimpleNamespace(start=asyncio.Event().wait)
        asyncio.get_running_loop().call_soon(stop.set)
        async with asyncio.timeout(50):
            return await start_app(app, stop)

    assert not asyncio.run(run())
    assert armed == [lifetime.END_S]


def test_what_a_start_raises_is_raised_and_what_it_has_begun_does_not_hold_the_process(armed: list[float]) -> None:
    async def start() -> None:
        raise RuntimeError("no broker")

    app: Any = SimpleNamespace(start=start)
    with pytest.raises(RuntimeError, match="no broker"):
        asyncio.run(start_app(app, asyncio.Event()))
    assert armed == [lifetime.END_S]


def test_a_start_in_time_is_told(armed: list[float]) -> None:
    async def start() -> None:
        pass

    app: Any = SimpleNamespace(start=start)
    assert asyncio.run(start_app(app, asyncio.Event()))
    assert armed == []


def test_an_app_that_stops_with_an_error_has_stopped() -> None:
    async def stop() -> None:
        raise RuntimeError("a child was not there")

    app: Any = SimpleNamespace(stop=stop)
    asyncio.run(stop_app(app))
