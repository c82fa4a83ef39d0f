"""Which of xdist's workers runs which file of `make test`, and when: two cores are never idle, and all end together.

Tests with real processes mostly wait, and the others mostly compute. So there are two workers more than cores: the
first one runs files that compute, at a low priority, in the time that the others leave; each of those begins with files
that wait, the longest first, and helps to compute when there are no more.
"""

import os
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ROOT = Path(__file__).parents[1]
BACKGROUND = "gw0"
BACKGROUND_NICE = 10
# Tells xdist's workers that there is one in the background.
WITH_BACKGROUND = "FLEETBEAT_TESTS_WITH_BACKGROUND"
# About how many seconds files take that take long; it only has to be about right.
SECONDS = {
    "tests/integration/test_up.py": 110,
    "tests/integration/test_liveness_restart.py": 100,
    "tests/integration/test_agent_outage.py": 75,
    "tests/faults/test_rows.py": 70,
    "tests/integration/test_kafka_launcher.py": 70,
    "tests/integration/test_recreated_topics.py": 70,
    "tests/integration/test_dlq_crashes.py": 60,
    "tests/integration/test_archive_kafka.py": 60,
    "tests/integration/test_objective_versions.py": 58,
    "tests/integration/test_readme.py": 65,
    "tests/integration/test_reconcile.py": 56,
    "tests/integration/test_state.py": 50,
    "tests/faults/test_archive_row.py": 45,
    "tests/integration/test_several_workers.py": 45,
    "tests/integration/test_liveness.py": 45,
    "tests/integration/test_sql_http.py": 40,
    "tests/unit/test_liveness_exactness.py": 30,
    "tests/integration/test_sql_clients.py": 40,  # where nothing is built yet
}
WITH_PROCESSES_S = 30.0
A_TEST_S = 0.05


class ByKind(LoadFileScheduling):  # type: ignore[misc]
    """Files as they are chosen for a worker, instead of in the order of how many tests they have."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        background = is_background(node.gateway.id)
        mine = [file for file in self.workqueue if not (background and waits(file))]
        if not mine:
            node.shutdown()
            return
        chosen = max(mine, key=lambda file: (waits(file), self._seconds(file)))
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """A worker runs a test when it knows the next one: it need not hold more files than that takes."""
        if self.workqueue and self._pending_of(self.assigned_work[node]) > 1:
            return
        super()._reschedule(node)

    def _seconds(self, file: str) -> float:
        usual = WITH_PROCESSES_S if waits(file) else 0.0
        return SECONDS.get(file, usual + A_TEST_S * len(self.workqueue[file]))


def is_background(worker: str | None) -> bool:
    """Whether that one of xdist's workers computes in the background; None is no worker of xdist."""
    return worker == BACKGROUND and WITH_BACKGROUND in os.environ


def step_back() -> None:
    """In the background, this process and all that it starts leave the cores to the others."""
    if is_background(os.environ.get("PYTEST_XDIST_WORKER")):
        os.nice(BACKGROUND_NICE)


@cache
def waits(file: str) -> bool:
    """Whether its tests need a broker."""
    return "pytest.mark.kafka" in (ROOT / file).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByKind | None:
    """For `--dist loadfile` on more than one worker."""
    several = (config.getoption("numprocesses") or 0) > 1
    return ByKind(config, log) if config.getoption("dist") == "loadfile" and several else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Two more than cores for `-n auto --dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    os.environ[WITH_BACKGROUND] = "1"
    return len(os.sched_getaffinity(0)) + 2
