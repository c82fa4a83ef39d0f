"""Ctrl-C ends a command that waits for a broker which does not answer: at once, and without a traceback."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Of the 40 s that a client waits for the broker; the rest is for a busy machine.
AT_ONCE_S = 15.0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["dlq", "list"], 130, ""),
        (["dlq", "replay", "--yes"], 1, "fleetbeat: stopped before the end; run it again for the rest\n"),
        (["simulate", "--nodes", "3", "--seed", "7"], 130, "seed 7 (given)\n"),
        (["topics", "check"], 130, ""),
        (["slo"], 130, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_who_waits_for_a_silent_broker_can_stop(arguments: list[str], status: int, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(60)
        command = [*arguments, "--brokers", f"127.0.0.1:{broker.getsockname()[1]}"]
        with subprocess.Popen(
            [sys.executable, "-m", "fleetbeat", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                client, _ = broker.accept()
                with client:
                    client.settimeout(60)
                    client.recv(1)  # it has asked, and waits
                    process.send_signal(signal.SIGINT)
                    out, err = process.communicate(timeout=AT_ONCE_S)
            finally:
                process.kill()
    assert (process.returncode, out, err) == (status, "", said)
