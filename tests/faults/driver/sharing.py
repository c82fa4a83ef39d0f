"""Which of two workers keeps which objectives, as their answers tell."""

from tests.faults.driver.processes import DoomedWorker
from tests.faults.driver.stand import PROMISES

# After so long the group has given a silent worker's partitions to others.
SESSION_S = 6.0
TAKEOVER_S = 120.0


def kept(worker: DoomedWorker) -> set[str]:
    """What this worker answers for itself; of others it would fetch what it does not keep."""
    return {promise.id for promise in PROMISES if worker.get(f"/api/v1/slos/{promise.id}", alone=True)[0] == 200}


def keeps_all(worker: DoomedWorker) -> bool:
    return len(kept(worker)) == len(PROMISES)


def share(workers: list[DoomedWorker]) -> bool:
    """Each keeps some, each objective is kept by one."""
    found = [kept(worker) for worker in workers]
    return all(found) and sum(map(len, found)) == len(set().union(*found)) == len(PROMISES)
