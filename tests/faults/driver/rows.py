"""The scenarios: what each row of the fault matrix does to a stand. A scenario ends when its last fault is over."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from schemas.codec import encode
from tests.faults.driver.archive_rows import killed_archive, refusing_store
from tests.faults.driver.archive_stand import ArchiveStand
from tests.faults.driver.collector_rows import cut_off, damaged_spool, full_disk, killed_agent, wild_clock
from tests.faults.driver.collector_stand import SplitStand
from tests.faults.driver.group import reset_offsets, tear_last_page
from tests.faults.driver.poison import heartbeat, poisons
from tests.faults.driver.processes import PAGES, PARTIALS, DoomedWorker, deaths
from tests.faults.driver.proxy import DEAF
from tests.faults.driver.senders import HOUR_MS, send_old, send_poison, send_wild
from tests.faults.driver.sharing import SESSION_S, TAKEOVER_S, keeps_all, share
from tests.faults.driver.stand import Stand
from tests.faults.driver.together import together
from tests.faults.driver.verdict import FORGED
from tests.integration.worker_process import eventually, now_ms, probe_result

# What is younger may be in slices that are not sealed yet, of which a part only would be read again.
OPEN_S = 25.0
ARCHIVE = "fleetbeat-archive"


def killed_worker(stand: Stand) -> None:
    """Kill -9 at named points of its sends, and at random moments."""
    worker = stand.worker()
    stand.start_fleet()
    for death in deaths(stand.rng, 20 if stand.long else 3):
        if death is None:
            worker.start()
            stand.some_time(1, 12)
            worker.kill()
        else:
            worker.start_doomed(death).await_death()
        stand.kills += 1
        stand.say(f"  killed: {death or 'at a random moment'}")
    worker.start()


def frozen_worker(stand: Stand) -> None:
    """Two workers; one is stopped for longer than its session, wakes up, and then the other is killed."""
    first, second = stand.worker("first"), stand.worker("second")
    stand.keep(first)
    stand.keep(second)  # one that wakes up may find that its writes have failed, and end
    stand.start_fleet()
    first.start().await_ready()
    second.start()
    for frozen, other in ((second, first), (first, second)):
        eventually(lambda: share([first, second]), "sharing", TAKEOVER_S)
        stand.some_time(1, 4)
        frozen.pause()
        time.sleep(SESSION_S)
        eventually(partial(keeps_all, other), "takeover", TAKEOVER_S)
        stand.some_time(1, 4)
        frozen.resume()
        stand.some_time(1, 8)
    stand.kill(second)


def broker_gone(stand: Stand) -> None:
    """The broker is killed and started again, then paused; a worker that ends is started again by its unit only."""
    worker = stand.worker().start().await_ready()
    stand.keep(worker)
    stand.start_fleet()
    stand.some_time(3, 8)
    stand.broker.kill()
    stand.kills += 1
    stand.some_time(1, 10)
    stand.broker.start()
    stand.some_time(5, 15)
    stand.pause_broker(60 if stand.long else 15)


def broken_network(stand: Stand) -> None:
    """The worker's way to the broker is slow, then deaf to the one side, to the other and to both, then broken."""
    proxy = stand.proxy()
    worker = stand.worker(brokers=proxy.address).start().await_ready()
    stand.keep(worker)  # one whose writes have timed out ends
    stand.start_fleet()
    proxy.delay_s = 0.1
    stand.some_time(8, 15)
    proxy.delay_s = 0.0
    for held in DEAF:
        proxy.held = held
        stand.some_time(3, 20 if stand.long else 8)
        proxy.held = frozenset()
        stand.some_time(3, 8)
    for _ in range(5):
        stand.some_time(0, 3)
        proxy.reset()


def wild_clocks(stand: Stand) -> None:
    """Nodes whose clocks are an hour off, step back, or say what cannot be; the worker is killed among them."""
    worker = stand.worker().start()
    stand.start_fleet()
    worker.await_ready()
    for step in range(600):
        send_wild(stand, step)
        time.sleep(0.02)
        if step == 300:
            stand.kill(worker)
            worker.start()


def poisoned(stand: Stand) -> None:
    """Every kind of record that cannot be used, each with a good neighbour of the same node behind it."""
    worker = stand.worker().start()
    stand.start_fleet()
    worker.await_ready()
    seq = itertools.count()
    for _ in range(5 if stand.long else 1):
        for each in poisons():
            send_poison(stand, each, next(seq))
            stand.some_time(0, 0.2)
        if stand.long:
            stand.kill(worker)
            worker.start()


def torn_page(stand: Stand) -> None:
    """The last state page of a partition is cut while the worker is down."""
    worker = stand.worker().start()
    stand.start_fleet()
    worker.await_ready()
    stand.some_time(5, 15)
    stand.kill(worker)
    torn = tear_last_page(stand.brokers, PAGES, stand.rng)
    stand.say(f"  torn: partition {torn.partition}, {torn.key!r}")
    stand.unreadable_pages = 1
    worker.start()


def mixed_schemas(stand: Stand) -> None:
    """Heartbeats of the first schema beside the fleet's, which has the newest; workers come and go."""
    worker = stand.worker().start()
    stand.start_fleet()
    for seq in range(300):
        send_old(stand, seq)
        time.sleep(0.05)
        if seq == 150:
            worker.await_ready()
            stand.kill(worker)
            worker.start()


def storm(stand: Stand) -> None:
    """A worker is added or removed every ten seconds: stopped, killed, or one more."""
    workers = [stand.worker(name) for name in ("first", "second", "third")]
    workers[0].start().await_ready()
    for worker in workers:
        stand.keep(worker)
    stand.start_fleet()
    until = time.monotonic() + (300 if stand.long else 40)
    while time.monotonic() < until:
        stand.say(f"  {_one_more_or_less(stand, workers)}")
        time.sleep(10)


def replayed(stand: Stand) -> None:
    """An hour of event time is in the log; worker and archive are killed, and their groups set back to before it."""
    worker = stand.worker().start()
    for seq in range(20_000):
        ts = now_ms() - stand.rng.randrange(HOUR_MS)
        stand.guests.send(
            probe_result(node_id=f"guest-{seq % 20}", seq=seq, ts=ts, service=stand.rng.choice(["login", "new"]))
        )
    stand.start_fleet()
    for age_s in (HOUR_MS / 1_000, stand.rng.uniform(OPEN_S, 45)):
        worker.await_ready()
        stand.some_time(5, 12)
        stand.kill(worker)
        stand.kill_archive()
        reset_offsets(stand.brokers, ["probe-results", PARTIALS, "heartbeats"], age_s)
        reset_offsets(stand.brokers, ["probe-results", "heartbeats"], age_s, group=ARCHIVE)
        stand.say(f"  read again: the last {age_s:.0f} s")
        stand.start_archive()
        worker.start()


def forged(stand: Stand) -> None:
    """A million nodes that do not exist, while the true ones go on; a worker takes 100,000, 20,000 of them a minute."""
    worker = stand.worker("worker", "--nodes-max", "100000", "--nodes-new-per-minute", "20000").start()
    stand.start_fleet()
    worker.await_ready()
    stand.some_time(4, 8)
    names = [f"{FORGED}{number:07}" for number in range(1_000_000 if stand.long else 100_000)]
    template = heartbeat(node_id=names[0])
    value = encode(template)
    for name in names:
        stand.guests.send(replace(template, node_id=name), value.replace(names[0].encode(), name.encode()))
    stand.guests.flush()
    stand.kill(worker)
    worker.start()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix, and about how many seconds its long form takes on two idle cores."""

    title: str
    scenario: Callable[[Stand], None] | Callable[[ArchiveStand], None] | Callable[[SplitStand], None]
    takes_s: int
    at_half_capacity: bool = False
    of: Literal["worker", "archive", "agent", "split"] = "worker"


# Row 0 is no row of the matrix: the short form of several.
TOGETHER = 0
ROWS = {
    TOGETHER: Row("many at once", together, 80),
    2: Row("worker killed", killed_worker, 240),
    3: Row("archive killed", killed_archive, 300, of="archive"),
    4: Row("worker frozen, woken", frozen_worker, 100),
    5: Row("broker killed, paused", broker_gone, 150),
    6: Row("worker's network broken", broken_network, 120),
    8: Row("ClickHouse refuses", refusing_store, 240, of="archive"),
    9: Row("wild clocks", wild_clocks, 70),
    10: Row("poison", poisoned, 90),
    11: Row("torn state page", torn_page, 60),
    12: Row("schemas mixed", mixed_schemas, 70),
    13: Row("rebalance storm", storm, 420, at_half_capacity=True),
    14: Row("an hour read again", replayed, 80),
    15: Row("forged nodes", forged, 110),
}
# Of the agent, beside those of the same number.
AGENT_ROWS = {
    1: Row("agent killed", killed_agent, 120, of="agent"),
    6: Row("agent's network broken", cut_off, 150, of="split"),
    7: Row("agent's disk full", full_disk, 90, of="agent"),
    9: Row("agent's clock wrong", wild_clock, 100, of="agent"),
    11: Row("spool damaged", damaged_spool, 80, of="agent"),
}


def _one_more_or_less(stand: Stand, workers: list[DoomedWorker]) -> str:
    rng = stand.rng
    alive = [worker for worker in workers if worker.wanted]
    if len(alive) == 1 or (len(alive) < len(workers) and rng.random() < 0.5):
        chosen = rng.choice([worker for worker in workers if worker not in alive])
        chosen.start()
        return f"{chosen.name} added"
    chosen = rng.choice(alive)
    if rng.random() < 0.5:
        chosen.ask_to_stop()
        return f"{chosen.name} asked to stop"
    stand.kill(chosen)
    return f"{chosen.name} killed"
