"""The scenarios of the collector: what its rows do to a stand. A scenario ends when its last fault is over."""

import time

from agents.spool.layout import SEGMENT_HEADER_BYTES, Record, scan
from agents.spool.segments import SUFFIX
from schemas.codec import decode
from schemas.records import ProbeResult
from tests.faults.driver.agents import DROPPED, RUNS, WAITING, Death, LedgeredAgent, deaths
from tests.faults.driver.clock_file import ClockFile
from tests.faults.driver.collector_stand import CollectorStand, SplitStand
from tests.faults.driver.namespaces import RULES
from tests.faults.driver.proxy import Way
from tests.faults.driver.tmpfs import SmallDisk

CUT: frozenset[Way] = frozenset({"up", "down"})
SILENT: frozenset[Way] = frozenset({"down"})
DELAY_S = 0.2
LOSSY, DEAF = "5 % lost", "deaf to the broker"
HOUR_MS = 3_600_000
# The year 2286, and what no calendar has: 200 years before the epoch would be refused by the schema's rules.
FAR_MS = 8_200_000_000_000
IN_MEMORY = "fleetbeat_agent_spool_in_memory"
ACKNOWLEDGED = "fleetbeat_agent_records_acknowledged_total"


def killed_agent(stand: CollectorStand) -> None:
    """Kill -9 at named points between taking, writing and sending, and at random, also while Kafka is silent."""
    agent, control = stand.agent("agent"), stand.agent("control", without="flights")
    stand.start_work()
    for number, death in enumerate(deaths(stand.rng, 20 if stand.long else 8)):
        if death is None:
            stand.network.held = SILENT if number % 2 else frozenset()
            agent.start().await_runs(stand.rng.randrange(1, 80))
            stand.kill_agent(agent)
            stand.network.held = frozenset()
        else:
            agent.start(death).await_death()
            stand.kills += 1
        stand.say(f"  killed: {death or 'at a random moment'}")
    agent.start()
    control.start(Death("acknowledged", 3)).await_death()
    control.start()


def full_disk(stand: CollectorStand) -> None:
    """The disk is full while Kafka is there, while it is away until memory is full, too, and at a start."""
    disk = stand.enter(SmallDisk(stand.folder / "disk"))
    agent = stand.agent("agent", spool=disk.folder / "spool", memory_records=150)
    control = stand.agent("control", spool=disk.folder / "other", memory_records=150, without="kept")
    stand.start_work()
    for each in (agent, control):
        each.start().await_runs(20)
    child = agent.child
    disk.fill()
    stand.say("  disk full, Kafka there")
    agent.await_more(ACKNOWLEDGED, 60)
    stand.network.held = CUT
    stand.say("  disk full, Kafka away")
    for each in (agent, control):
        each.await_more(RUNS, 50)
    agent.await_metric(DROPPED, 30, reason="disk-failed")
    disk.free()
    stand.say("  disk has room, Kafka away")
    agent.await_below(IN_MEMORY, 60)  # what is on its way stays there
    agent.await_more(WAITING, 40)
    stand.network.held = frozenset()
    agent.await_idle()
    if agent.child is not child or not agent.runs:
        stand.faults.append("the agent has not lived through a full disk")
    disk.fill()
    stand.say("  a start with a full disk")
    if agent.stop() != 0:
        stand.faults.append("a stop with a full disk and Kafka there lost something")
    agent.start().await_runs(20)
    agent.await_more(ACKNOWLEDGED, 40)
    disk.free()


def wild_clock(stand: CollectorStand) -> None:
    """The agent's clock is an hour ahead, back, an hour behind, in another century, and back, while records wait."""
    clock, other = ClockFile(stand.folder / "clock"), ClockFile(stand.folder / "other-clock")
    agent = stand.agent("agent", clock=clock.path)
    control = stand.agent("control", clock=other.path, without="monotonic")
    stand.start_work()
    for each in (agent, control):
        each.start().await_runs(20)
    steps = [HOUR_MS, 0, -HOUR_MS, 0, FAR_MS, 0] if stand.long else [HOUR_MS, FAR_MS, 0]
    for number, off_ms in enumerate(steps):
        stand.network.held = CUT
        agent.await_more(WAITING, 30)
        if number == 0:  # a step ahead shows what it lacks; one back would stop it
            control.await_more(WAITING, 30)
            other.off(off_ms)
        clock.off(off_ms)
        stand.say(f"  the clock is off by {off_ms} ms")
        agent.await_more(RUNS, 30)
        if stand.rng.random() < 0.5 or off_ms == FAR_MS:  # a boot that begins at a wrong time
            stand.kill_agent(agent)
            agent.start().await_runs(20)
        stand.network.held = frozenset()
        agent.await_idle()
    stand.kill_agent(agent)
    agent.start().await_runs(10)


def damaged_spool(stand: CollectorStand) -> None:
    """While the agent is down its spool is cut in a record, or a bit turns in the middle or at the end."""
    agent, control = stand.agent("agent"), stand.agent("control", without="checksums")
    stand.start_work()
    for each in (agent, control):
        each.start().await_runs(20)
    kinds = ["cut", "middle", "end"] * (2 if stand.long else 1)
    stand.rng.shuffle(kinds)
    for kind in kinds:
        stand.network.held = CUT
        for each in (agent, control):
            each.await_more(WAITING, 60)
            stand.kill_agent(each) if each is agent else each.kill()
        for each in (agent, control):
            _damage(stand, each, kind)
            each.start()
        stand.network.held = frozenset()
        agent.await_metric(DROPPED, 1, reason="corrupt")
        agent.await_idle()
        corrupt = agent.metric(DROPPED, reason="corrupt")
        stand.given_up += 1
        if corrupt != 1:
            stand.faults.append(f"{kind}: {corrupt} records were counted as damaged; expected 1")


def cut_off(stand: SplitStand) -> None:
    """Between two network namespaces: nothing gets through, both ways or one, RST, 200 ms each way with 5 % loss."""
    agent, control = stand.agent("agent"), stand.agent("control", without="flights")
    stand.start_work()
    for each in (agent, control):
        each.start().await_runs(20)
    rules = list(RULES)
    stand.rng.shuffle(rules)
    for rule in rules:
        stand.say(f"  {rule}")
        stand.network.delay_s = DELAY_S if rule == LOSSY else 0.0
        stand.namespaces.rule(rule)
        if rule == LOSSY:
            agent.await_more(ACKNOWLEDGED, 300 if stand.long else 100)
        else:
            for each in (agent, control):
                each.await_more(WAITING, 60)
            stand.some_time(0, 15 if stand.long else 1)
        if rule == DEAF:  # what Kafka has answered and nobody heard: the next process sends it again
            stand.kill_agent(agent)
            control.kill()
            for each in (agent, control):
                each.start().await_runs(10)
        stand.namespaces.heal()
        stand.network.delay_s = 0.0
        healed = time.monotonic()
        agent.await_idle()
        stand.say(f"  all is sent {time.monotonic() - healed:.1f} s after it healed")


def _damage(stand: CollectorStand, agent: LedgeredAgent, kind: str) -> None:
    """Of a probe result that waits behind all that may be on its way."""
    segment = max(agent.spool.glob(f"*/probe-results/*{SUFFIX}"), key=lambda path: path.name)
    data = segment.read_bytes()
    spots = []
    begin = SEGMENT_HEADER_BYTES
    for end, what in scan(data, begin):
        if isinstance(what, Record) and isinstance(decode(what.payload), ProbeResult):
            spots.append((end - len(what.payload), end))
        begin = end
    behind = spots[-20:]  # at least 60 wait; before those are some that Kafka has
    at_begin, at_end = behind[-1] if kind != "middle" else stand.rng.choice(behind[:-1] or behind)
    stand.say(f"  {agent.name}: {kind} of {len(spots)} records, {segment.name}")
    if kind == "cut":
        with segment.open("r+b") as file:
            file.truncate(stand.rng.randrange(at_begin, at_end))
        return
    damaged = bytearray(data)
    damaged[stand.rng.randrange(at_begin, at_end)] ^= 1 << stand.rng.randrange(8)
    segment.write_bytes(damaged)
