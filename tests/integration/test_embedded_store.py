"""The embedded store's folder: one owner, rows that outlive a kill, an end that waits for nobody."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.integration.sql_gateway_client import ENVIRONMENT, SERVER, Server


def test_a_second_process_is_told_who_has_the_folder(start_gateway: Callable[..., Server], tmp_path: Path) -> None:
    server = start_gateway()
    second = subprocess.run(
        [sys.executable, str(SERVER), str(tmp_path / "store")],
        capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    assert second.returncode != 0
    assert f"store {tmp_path / 'store'}: in use by process {server.process.pid}" in second.stderr
    assert "stop that process, or give another folder" in second.stderr


def test_rows_outlive_a_kill_and_scratch_does_not(start_gateway: Callable[..., Server], tmp_path: Path) -> None:
    server = start_gateway()
    assert server.tell("insert") == "inserting"
    deadline = time.monotonic() + 90
    while int(server.ask("SELECT count() FROM inserted").text) < 50_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    seen = int(server.ask("SELECT count() FROM inserted").text)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(60)
    left = tmp_path / "store" / "scratch" / "left-behind"
    left.write_text("an insert on its way")
    again = start_gateway()
    assert int(again.ask("SELECT count() FROM inserted").text) >= seen >= 50_000
    assert not left.exists()


def test_stopping_does_not_wait_for_a_slow_query(start_gateway: Callable[..., Server]) -> None:
    server = start_gateway()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.ask, "SELECT count() FROM numbers(1e12) WHERE sipHash64(number) = 1")
        deadline = time.monotonic() + 25
        while server.ask("SELECT count() FROM system.processes").text != "2\n" and time.monotonic() < deadline:
            time.sleep(0.05)
        started_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_s < 28, "the query takes 30 s"
        assert slow.result().code == "394"
