"""A running agent whose file changes: in effect within a second, and every run that is due takes place, once."""

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import pytest

from agents.schedule import splay
from tests.integration.agent_process import NODE, AgentProcess
from tests.integration.worker_process import ANSWER_S, eventually

pytestmark = [pytest.mark.slow]

NO_KAFKA = "127.0.0.1:1"  # records wait in memory
RUNS = "fleetbeat_agent_probe_runs_total"
SKIPPED = "fleetbeat_agent_probe_skipped_total"
RELOADS = "fleetbeat_agent_config_reloads_total"
PROBES = 10
EVERY_S = 0.5
STORM_S = 5.0


@dataclass
class Ledger:
    """A target that counts who came, by probe, and remembers which variant came last."""

    visits: Counter[str] = field(default_factory=Counter)
    latest: dict[str, str] = field(default_factory=dict)
    port: int = 0

    @contextmanager
    def serving(self) -> Iterator[None]:
        ledger = self

        class Visit(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, probe, variant = self.path.split("/")
                with lock:
                    ledger.visits[probe] += 1
                    ledger.latest[probe] = variant
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Target(ThreadingHTTPServer):
            request_queue_size = 128  # all probes at once, however busy the machine

        lock = threading.Lock()
        with Target(("127.0.0.1", 0), Visit) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def text(agent: AgentProcess, ledger: Ledger, variant: str, probes: int = PROBES) -> str:
    """A config: half of its probes are the same in all variants."""
    lines = [f"node: {{id: {NODE}}}", f"metrics: {{listen: '127.0.0.1:{agent.port}'}}", "probes:"]
    for number in range(probes):
        url = f"http://127.0.0.1:{ledger.port}/p{number}/{variant if number % 2 else 'same'}"
        lines.append(f"  - {{name: p{number}, service: s, every_s: {EVERY_S}, http: {{url: '{url}'}}}}")
    return "\n".join(lines if probes else lines[:-1]) + "\n"


def replace(agent: AgentProcess, content: str) -> float:
    """The file is this from now on, at once and as a whole; when that was, Unix time."""
    new = agent.config.with_suffix(".new")
    new.write_text(content, encoding="utf-8")
    now = time.time()
    new.replace(agent.config)
    return now


def reload(agent: AgentProcess) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=ANSWER_S)
    try:
        connection.request("POST", "/-/reload")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def logged(agent: AgentProcess, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in agent.log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == event]


def at_s(line: dict[str, object]) -> float:
    return datetime.fromisoformat(str(line["time"])).timestamp()


def test_a_change_takes_effect_within_a_second_and_a_storm_of_them_loses_no_run_and_doubles_none(
    tmp_path: Path,
) -> None:
    ledger, rng = Ledger(), random.Random(8)
    with ledger.serving(), AgentProcess(tmp_path, NO_KAFKA) as agent:
        replace(agent, text(agent, ledger, "first"))
        agent.start()
        agent.await_metric(RUNS, PROBES)

        took_s = []
        for number in range(3):
            written_s = replace(agent, text(agent, ledger, f"quiet-{number}"))
            agent.await_metric(RELOADS, number + 1, result="applied")
            took_s.append(at_s(logged(agent, "config applied")[-1]) - written_s)
        assert median(took_s) <= 1.0, took_s
        eventually(lambda: {ledger.latest[f"p{n}"] for n in range(1, PROBES, 2)} == {"quiet-2"}, "the new probes")

        changes, until = 0, time.monotonic() + STORM_S
        while time.monotonic() < until:
            changes += 1
            bad = rng.random() < 0.3
            replace(agent, text(agent, ledger, f"storm-{changes}") + ("queue: none\n" if bad else ""))
            for _ in range(rng.randrange(3)):
                agent.signal(signal.SIGHUP)
            if rng.random() < 0.5:
                assert reload(agent)[0] == (400 if bad else 200)
            time.sleep(rng.uniform(0, 0.3))
        replace(agent, text(agent, ledger, "", probes=0))
        status, answer = reload(agent)
        assert (status, answer["probes"]) == (200, {"added": 0, "changed": 0, "removed": PROBES, "unchanged": 0})
        eventually(lambda: agent.metric("fleetbeat_agent_running") == 0, "end of what ran")

        skipped = agent.metric(SKIPPED)
        # On a busy machine a run may end before the target has heard of it: told as a timeout, and not lost.
        runs, up = agent.metric(RUNS), agent.metric(RUNS, outcome="up")
        assert up <= ledger.visits.total() <= runs
        assert agent.metric(RELOADS, result="applied") > 3 + changes / 4
        begun_s, ended_s = at_s(logged(agent, "started")[0]), at_s(logged(agent, "config applied")[-1])
    due_in_all = 0.0
    for number in range(PROBES):
        place_s = splay(NODE, f"p{number}") * EVERY_S
        due = (ended_s - place_s) // EVERY_S - (begun_s - place_s) // EVERY_S
        due_in_all += due
        least = due - 1 - skipped - (runs - up)
        assert least <= ledger.visits[f"p{number}"] <= due + 1, f"p{number}: {due} due, {skipped} skipped"
    assert abs(due_in_all - runs - skipped) <= PROBES / 2, f"{due_in_all} due, {runs} runs, {skipped} skipped"


def test_a_signal_that_comes_before_the_file_was_read_does_not_end_the_agent(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, NO_KAFKA) as agent:
        config = agent.config.read_bytes()
        agent.config.unlink()
        os.mkfifo(agent.config)
        agent.start()
        with agent.config.open("wb") as file:  # returns once the agent reads
            for _ in range(20):
                agent.signal(signal.SIGHUP)
                time.sleep(0.005)
            file.write(config)
        eventually(lambda: agent.get("/-/healthy")[0] == 200, "start")


def test_the_address_of_the_metrics_can_change_and_one_that_is_taken_is_refused(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, NO_KAFKA) as agent, AgentProcess(tmp_path, NO_KAFKA, name="other") as other:
        agent.start()
        other.start()
        for each in (agent, other):
            eventually(lambda each=each: each.get("/-/healthy")[0] == 200, "start")  # type: ignore[misc]
        before, config = agent.port, agent.config.read_text(encoding="utf-8")
        replace(agent, config.replace(f":{before}'", f":{other.port}'"))
        status, answer = reload(agent)
        assert (status, answer["problems"]) == (
            400,
            [f"{agent.config}: metrics.listen 127.0.0.1:{other.port}: address already in use"],
        )
        other.kill()
        assert reload(agent)[0] == 200
        assert agent.get("/-/healthy")[0] == 0
        agent.port = other.port
        assert agent.get("/-/healthy")[0] == 200
        assert agent.metric("fleetbeat_agent_config_last_reload_successful") == 1
