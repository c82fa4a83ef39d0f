"""The scenarios of the archive: what rows 3 and 8 do to a stand. A scenario ends when its last fault is over."""

import time
from collections.abc import Callable
from functools import partial

from tests.clickhouse_server.proxy import Fault
from tests.faults.driver.archive_stand import ArchiveStand, ServedStore
from tests.faults.driver.archive_verdict import TABLES, log_ends, rollups
from tests.faults.driver.archives import ArchiveProcess, Death, FilledStore, deaths
from tests.faults.driver.group import reset_offsets
from tests.faults.driver.stand import PARTITIONS
from tests.integration.worker_process import eventually

INTO = b"INSERT INTO telemetry.probe_results"
# Long, since a machine may do other things; what has to happen happens within seconds.
PATIENCE_S = 400.0
# The group gives a silent archive's partitions away after 10 s.
SESSION_S = 10.0
HELD = 10_000
# So many records, less than a MiB of compressed batches, and one poll more: a MiB of each partition.
HELD_BYTES = (2 + PARTITIONS) << 20
STORED = 'fleetbeat_archive_records_total{topic="probe-results"}'
REFUSALS = 'fleetbeat_archive_store_errors_total{topic="probe-results"}'
BUFFERED_BYTES = 'fleetbeat_archive_buffered_bytes{topic="probe-results"}'
BUFFERED = 'fleetbeat_archive_buffered_records{topic="probe-results"}'


def killed_archive(stand: ArchiveStand) -> None:
    """Kill -9 at named points of an insert and at random moments; then, on a server, under rebalances."""
    store = stand.embedded()
    (archive,) = store.archives
    archive.start().await_ready()
    stand.start_fleet()
    drawn = deaths(stand.rng, long=stand.long, rollups=rollups(store.sql))
    stand.kill(archive)
    for death in drawn:
        _die(stand, archive, death)
    for _ in range(3 if stand.long else 0):
        archive.start()
        stand.some_time(1, 8)
        stand.kill(archive)
    archive.start()
    if stand.long:
        _control(stand)
        _rebalances(stand)


def refusing_store(stand: ArchiveStand) -> None:
    """A server that is down, slow, answers 500, drips, has a full disk or another schema; an embedded full disk."""
    served = stand.server(1, "--held", str(HELD), "--answer-s", "20")
    embedded = stand.embedded("embedded", "--held", str(HELD))
    (archive,), (other,) = served.store.archives, embedded.archives
    archive.start().await_ready()
    other.start().await_ready()
    stand.start_fleet()
    stand.some_time(2, 4)
    outages = [
        partial(_outage, stand, served, "down for 20 s", served.clickhouse.kill, served.clickhouse.start, 20.0),
        partial(_slow, stand, served),
        partial(_broken, stand, served, "500", Fault("error")),
        partial(_disk_full, stand, served),
        partial(_schema, stand, served),
    ]
    if not stand.long:
        outages = outages[:1]
    stand.rng.shuffle(outages)
    for outage in outages:
        outage()
    shim = other.shim
    assert shim is not None
    stand.say("  embedded: disk full")
    _expect_refused(stand, embedded, partial(shim.fill_disk, full=True), 15.0)
    shim.fill_disk(full=False)
    eventually(other.is_ready, "readiness with free space", PATIENCE_S)


def _die(stand: ArchiveStand, archive: ArchiveProcess, death: Death) -> None:
    archive.start(death)
    if death.point == "lost-answer":
        archive.await_ready()
        stand.some_time(2, 5)
        stand.kill(archive)
    else:
        archive.await_death()
        stand.kills += 1
    stand.say(f"  killed: {death}")


def _control(stand: ArchiveStand) -> None:
    """The same without plans, which must come out wrong."""
    (archive,) = stand.embedded("planless", "--planless", control=True).archives
    for nth in (2, 3):
        archive.start(Death("after-insert", nth=nth)).await_death()
    archive.start()


def _rebalances(stand: ArchiveStand) -> None:
    """Two archives share a server's tables; they come and go, and so do server, answers and requests."""
    served = stand.server(2, "--answer-s", "5")
    first, second = served.store.archives
    first.start().await_ready()
    second.start()
    steps: list[Callable[[], None]] = [
        partial(_killed, stand, first, second),
        partial(_killed, stand, second, first),
        partial(_frozen, stand, served, second),
        partial(_broken, stand, served, "answers lost", Fault("reset-after", INTO, times=3)),
        partial(_broken, stand, served, "requests lost", Fault("reset-before", INTO, times=3)),
        partial(_broken, stand, served, "answers swallowed", Fault("swallow", INTO, times=2)),
        partial(_late, stand, served),
        partial(_server_dies, stand, served),
        partial(_stopped, second),
        partial(_read_again, stand, served),
    ]
    stand.rng.shuffle(steps)
    for step in steps:
        eventually(lambda: first.is_ready() and second.is_ready(), "readiness of both", PATIENCE_S)
        stand.say(f"  server: {step.func.__name__.strip('_')} {_said(step)}")  # type: ignore[attr-defined]
        step()
    eventually(lambda: first.is_ready() and second.is_ready(), "readiness of both", PATIENCE_S)


def _said(step: Callable[[], None]) -> str:
    return " ".join(each for each in step.args if isinstance(each, str))  # type: ignore[attr-defined]


def _killed(stand: ArchiveStand, archive: ArchiveProcess, other: ArchiveProcess) -> None:
    """At a point of its insert; the other takes over, and gives back."""
    archive.kill()
    point = stand.rng.choice(["before-insert", "half-insert", "after-insert"])
    _die(stand, archive, Death(point, nth=stand.rng.randrange(1, 4)))
    stand.some_time(0, SESSION_S + 5)
    archive.start()
    assert other.runs


def _frozen(stand: ArchiveStand, served: ServedStore, archive: ArchiveProcess) -> None:
    """Stopped while its insert is on its way, for longer than its session; woken up when the other has taken over."""
    before = served.proxy.done["slow"]
    served.proxy.break_with(Fault("slow", INTO, times=1, seconds=1.0))
    served.proxy.await_faults("slow", before + 1, PATIENCE_S)
    archive.pause()
    served.proxy.break_with(None)
    time.sleep(SESSION_S + 5)
    archive.resume()
    stand.some_time(1, 5)


def _late(stand: ArchiveStand, served: ServedStore) -> None:
    """An insert that the network holds back until its sender is dead and its successor has verified the plan."""
    before = served.proxy.done["late"]
    # the client repeats what was reset, once
    served.proxy.break_with(Fault("late", INTO, times=2, seconds=25.0))
    served.proxy.await_faults("late", before + 1, PATIENCE_S)
    time.sleep(1)
    for archive in served.store.archives:
        stand.kill(archive)
    served.proxy.break_with(None)
    for archive in served.store.archives:
        archive.start()
    eventually(lambda: served.proxy.done["late-arrived"] == served.proxy.done["late"], "late requests", PATIENCE_S)


def _server_dies(stand: ArchiveStand, served: ServedStore) -> None:
    """At the rename of a part, and is started again."""
    shim = served.clickhouse.shim
    assert shim is not None
    query = "SELECT uuid FROM system.tables WHERE database = 'telemetry' AND name = 'probe_results'"
    (uuid,) = served.store.sql.rows(query)
    shim.die_at_rename(uuid.decode(), after=stand.rng.random() < 0.5)
    eventually(lambda: not served.clickhouse.runs, "end of the server", PATIENCE_S)
    stand.kills += 1
    shim.calm()
    served.clickhouse.start()


def _stopped(archive: ArchiveProcess) -> None:
    archive.stop()
    archive.start()


def _read_again(stand: ArchiveStand, served: ServedStore) -> None:
    """All archives are down, and the group's offsets go back by an hour."""
    for archive in served.store.archives:
        stand.kill(archive)
    reset_offsets(stand.brokers, list(TABLES), 3_600, group="archive-server")
    for archive in served.store.archives:
        archive.start()


def _broken(stand: ArchiveStand, served: ServedStore, what: str, fault: Fault) -> None:
    """Until as many requests have met the fault as it says, or for 15 s."""
    if fault.times is None:
        _outage(
            stand, served, what, partial(served.proxy.break_with, fault), partial(served.proxy.break_with, None), 15.0
        )
        return
    before = served.proxy.done[fault.kind]
    served.proxy.break_with(fault)
    served.proxy.await_faults(fault.kind, before + fault.times, PATIENCE_S)
    stand.some_time(6, 8)  # longer than an answer may take
    served.proxy.break_with(None)


def _slow(stand: ArchiveStand, served: ServedStore) -> None:
    """Every answer takes 5 s, and later comes in drops."""
    stand.say("  slow: 5 s an answer for 30 s, then drops")
    served.proxy.break_with(Fault("slow", seconds=5.0))
    _watch(stand, served.store, 30.0)
    served.proxy.break_with(Fault("drip"))
    _watch(stand, served.store, 10.0)
    served.proxy.break_with(None)
    eventually(served.store.archives[0].is_ready, "readiness after slowness", PATIENCE_S)


def _disk_full(stand: ArchiveStand, served: ServedStore) -> None:
    shim = served.clickhouse.shim
    assert shim is not None
    fill, free = partial(shim.fill_disk, full=True), partial(shim.fill_disk, full=False)
    _outage(stand, served, "disk full for 20 s", fill, free, 20.0)


def _schema(stand: ArchiveStand, served: ServedStore) -> None:
    """A column more, which nobody minds; then a column under another name, which refuses all rows."""
    alter = partial(_alter, served)
    alter("ADD COLUMN added String DEFAULT 'x'")
    stand.some_time(2, 4)
    assert served.store.archives[0].is_ready(), "an added column must not matter"
    there, back = "RENAME COLUMN error TO renamed", "RENAME COLUMN renamed TO error"
    _outage(stand, served, "a column renamed for 15 s", partial(alter, there), partial(alter, back), 15.0)


def _alter(served: ServedStore, how: str) -> None:
    served.clickhouse.command(f"ALTER TABLE telemetry.probe_results {how}")


def _outage(
    stand: ArchiveStand,
    served: ServedStore,
    what: str,
    begin: Callable[[], object],
    heal: Callable[[], object],
    seconds: float,
) -> None:
    stand.say(f"  {what}")
    _expect_refused(stand, served.store, begin, seconds)
    heal()
    (archive,) = served.store.archives
    eventually(archive.is_ready, f"readiness after {what}", PATIENCE_S)


def _expect_refused(stand: ArchiveStand, store: FilledStore, begin: Callable[[], object], seconds: float) -> None:
    """The archive says that it is not ready, holds no more than it may, and leaves the rest in Kafka."""
    (archive,) = store.archives
    before = archive.metric(REFUSALS) or 0
    begin()
    eventually(lambda: not archive.is_ready(), "answer that it is not ready", PATIENCE_S)
    # An insert of the results that had begun before may still end well after heartbeats were refused.
    eventually(lambda: (archive.metric(REFUSALS) or 0) > before, "refusal of an insert of probe results", PATIENCE_S)
    sent, stored = log_ends(stand.brokers)["probe-results"], archive.metric(STORED) or 0
    held = _watch(stand, store, seconds)
    sent, stored = log_ends(stand.brokers)["probe-results"] - sent, (archive.metric(STORED) or 0) - stored
    stand.say(f"    {sent} came, {stored} of them were stored, {held} held at most")
    if stored or not sent:
        stand.faults.append(f"{archive.name} stored {stored} of {sent} records while it was refused; expected none")


def _watch(stand: ArchiveStand, store: FilledStore, seconds: float) -> int:
    """The most records that were held; more bytes than the bound are a fault."""
    (archive,), most, most_bytes, until = store.archives, 0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, archive.metric(BUFFERED) or 0)
        most_bytes = max(most_bytes, archive.metric(BUFFERED_BYTES) or 0)
        time.sleep(0.5)
    if most_bytes > HELD_BYTES:
        stand.faults.append(f"{archive.name} held {most_bytes} bytes of batches; expected at most {HELD_BYTES}")
    return most
