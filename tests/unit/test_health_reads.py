"""What health is read from: files as kernels write them, files that lack or are broken, and the window over them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.health.monitor import LEAST_S, LONGEST_S, STEP_S, HealthMonitor
from agents.health.procfs import ProcFiles
from agents.health.window import (
    MEMINFO,
    MEMORY,
    NETSTAT,
    OWN_SCHEDSTAT,
    PROCESSOR,
    SCHEDSTAT,
    SNMP,
    Health,
    Snapshot,
    compare,
)
from tests.unit.agent_fakes import ManualClock, settle

# In the form of Linux 6; other lines of a file are there because they have to be passed over.
SNMP_TEXT = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 1000
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs \
RetransSegs InErrs OutRsts InCsumErrors
Tcp: 1 200 120000 -1 {active} {passive} {failed} 7 2 500 {sent} {again} 0 9 0
Udp: InDatagrams NoPorts
Udp: 4 0
"""
NETSTAT_TEXT = """\
TcpExt: SyncookiesSent TW TWRecycled TWKilled ListenOverflows ListenDrops TCPHPHits
TcpExt: 0 {tw} 5 {killed} {drops} {drops} 12
IpExt: InNoRoutes
IpExt: 0
"""
PRESSURE_TEXT = """\
some avg10=1.08 avg60=1.90 avg300=1.35 total={total}
full avg10=0.00 avg60=0.01 avg300=0.27 total=1
"""
SCHEDSTAT_TEXT = """\
version 17
timestamp 4295000000
cpu0 0 0 0 0 0 0 {run} {waited} 77
domain0 00000003 0 0
cpu1 0 0 0 0 0 0 1000 2000 77
"""
MEMINFO_TEXT = "MemTotal:       1000 kB\nMemFree:          10 kB\nMemAvailable:     {available} kB\n"


def world(
    *,
    active: int = 100,
    passive: int = 100,
    failed: int = 10,
    sent: int = 10_000,
    again: int = 5,
    tw: int = 50,
    killed: int = 0,
    drops: int = 0,
    memory_us: int = 1_000,
    processor_us: int = 2_000,
) -> dict[str, bytes]:
    texts = {
        SNMP: SNMP_TEXT.format(active=active, passive=passive, failed=failed, sent=sent, again=again),
        NETSTAT: NETSTAT_TEXT.format(tw=tw, killed=killed, drops=drops),
        MEMORY: PRESSURE_TEXT.format(total=memory_us),
        PROCESSOR: PRESSURE_TEXT.format(total=processor_us),
    }
    return {path: text.encode() for path, text in texts.items()}


def between(before: dict[str, bytes], now: dict[str, bytes], seconds: float = 1.0) -> Health:
    return compare(Snapshot(10.0, before), Snapshot(10.0 + seconds, now))


def points(health: Health) -> tuple[float | None, ...]:
    return tuple(None if part is None else round(part.points, 6) for part in health.parts())


def test_a_second_in_which_nothing_happens_is_100() -> None:
    health = between(world(), world())
    assert (health.score, health.source, health.unknown) == (100, "snmp/psi/psi", ())


def test_counters_become_events_a_second() -> None:
    # In two seconds: 9 asked, 5 of them failed, 2 accepted: 6 connections; 84 into TIME_WAIT, 20 of them for short.
    now = world(active=109, failed=15, passive=102, tw=114, killed=20, memory_us=501_000, processor_us=1_002_000)
    health = between(world(), now, 2.0)
    assert points(health) == (100 + 5 * 3 - 42, 75, 50)
    assert health.score == round(0.4 * 73 + 0.3 * 75 + 0.3 * 50)


def test_segments_that_are_sent_again_and_callers_without_room_take_points() -> None:
    assert points(between(world(), world(sent=12_000, again=105)))[0] == 50
    assert points(between(world(), world(passive=130, drops=10)))[0] == 75


def test_what_the_kernel_counted_by_itself_goes_before_the_files() -> None:
    before, now = Snapshot(1.0, world(), events=(1_000, 2_000)), Snapshot(2.0, world(tw=90), events=(1_002, 2_030))
    health = compare(before, now)
    assert (health.source, points(health)[0]) == ("ebpf/psi/psi", 100 + 5 * 2 - 30)
    # In a window in which it began to count, it cannot be used yet.
    assert compare(Snapshot(1.0, world()), now).source == "snmp/psi/psi"


@pytest.mark.parametrize(
    ("before", "now", "worth"),
    [
        (2**32 - 10, 20, 70),  # over the end of 32 bits
        (2**40, 2**40 + 30, 70),
        (100, 70, None),  # set anew: nobody knows how often it counted
        (2**40, 5, None),
    ],
)
def test_a_counter_may_wrap_but_not_go_back(before: int, now: int, worth: float | None) -> None:
    health = between(world(tw=before), world(tw=now))
    if worth is None:
        assert points(health)[0] == 100, "TIME_WAIT is left out"
        assert health.unknown == (f"TW: went back from {before} to {now}",)
    else:
        assert (points(health)[0], health.unknown) == (worth, ())


def test_without_pressure_memory_and_run_delays_are_read() -> None:
    def other(available: int, run: int, waited: int) -> dict[str, bytes]:
        texts = {path: text for path, text in world().items() if path not in (MEMORY, PROCESSOR)}
        texts[MEMINFO] = MEMINFO_TEXT.format(available=available).encode()
        texts[SCHEDSTAT] = SCHEDSTAT_TEXT.format(run=run, waited=waited).encode()
        return texts

    health = between(other(40, 0, 0), other(40, 600, 200))
    assert (points(health), health.source, health.unknown) == ((100, 40, 75), "snmp/meminfo/schedstat", ())


def test_the_delays_of_this_process_are_the_last_resort() -> None:
    before = {OWN_SCHEDSTAT: b"1000 2000 30\n"}
    health = between(before, {OWN_SCHEDSTAT: b"1100 2300 31\n"})
    assert (points(health), health.source, health.score) == ((None, None, 25), "-/-/self", 25)


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        (SNMP, b"", "/proc/net/snmp: [] words in lines of Tcp:; expected two alike"),
        (SNMP, b"Tcp: ActiveOpens\nTcp:\n", "/proc/net/snmp: [2, 1] words in lines of Tcp:; expected two alike"),
        (SNMP, b"Tcp: Other\nTcp: 1\n", "ActiveOpens: b''; expected a number"),
        (SNMP, b"Tcp: ActiveOpens\nTcp: x\n", "ActiveOpens: b'x'; expected a number"),
        (MEMORY, b"some total=18446744073709551616\n", "/proc/pressure/memory: 18446744073709551616; expected 64 bits"),
        (MEMORY, b"full avg10=0.00 total=1\n", "/proc/pressure/memory: no line that begins with some"),
        (MEMORY, b"some avg10=0.00\n", "/proc/pressure/memory: b'some avg10=0.00'; expected a number"),
        (PROCESSOR, b"\xff\x00", "/proc/pressure/cpu: no line that begins with some"),
    ],
)
def test_a_broken_file_makes_its_part_unknown_and_says_why(path: str, text: bytes, why: str) -> None:
    broken = {**world(), path: text}
    health = between(world(), broken)
    assert health.unknown == (why,)
    assert sum(part is None for part in health.parts()) == 1
    assert health.score == 100, "the others make up for it"


def test_without_netstat_tcp_is_known_all_the_same() -> None:
    texts = world()
    del texts[NETSTAT]
    health = compare(Snapshot(1.0, texts), Snapshot(2.0, texts, {NETSTAT: "permission denied"}))
    assert points(health)[0] == 100
    assert set(health.unknown) == {"/proc/net/netstat: not read"}


def test_where_nothing_can_be_read_there_is_no_score() -> None:
    health = between({}, {})
    assert (health.score, health.source, len(health.unknown)) == (None, None, 3)
    assert between(world(), world(), 0.0).score is None


@given(
    path=st.sampled_from([SNMP, NETSTAT, MEMORY, PROCESSOR, MEMINFO, SCHEDSTAT, OWN_SCHEDSTAT]),
    data=st.data(),
)
def test_no_text_whatever_makes_it_fail(path: str, data: st.DataObject) -> None:
    known = {**world(), MEMINFO: MEMINFO_TEXT.encode(), SCHEDSTAT: SCHEDSTAT_TEXT.encode(), OWN_SCHEDSTAT: b"1 2 3\n"}
    whole = known[path]
    at, size = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 40))
    torn = whole[:at] + data.draw(st.binary(max_size=10)) + whole[at + size :]
    only = {path: torn} if data.draw(st.booleans()) else {**known, path: torn}
    for health in (between(known, only), between(only, known), between(only, only)):
        score = health.score
        assert score is None or 0 <= score <= 100


def put(root: Path, texts: dict[str, bytes]) -> None:
    for path, text in texts.items():
        place = root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text)


def test_files_are_read_as_they_are_now_and_what_lacks_is_named(tmp_path: Path) -> None:
    put(tmp_path, {**world(), MEMINFO: b"unused", OWN_SCHEDSTAT: b"unused"})
    files = ProcFiles(lambda: 5.0, root=tmp_path)
    first = files.snapshot()
    assert first.texts == world(), "with pressure there, what would stand in for it is not read"
    assert first.problems == {SCHEDSTAT: "no such file or directory"}
    put(tmp_path, world(active=101, tw=60))
    assert files.snapshot().texts == world(active=101, tw=60)
    files.close()
    assert files.snapshot().texts == {}, "closed, and no error"


def test_netstat_is_left_alone_while_no_segment_comes_or_goes(tmp_path: Path) -> None:
    put(tmp_path, world())
    files = ProcFiles(lambda: 5.0, root=tmp_path)
    files.snapshot()
    put(tmp_path, world(tw=99))
    assert files.snapshot().texts == world()
    put(tmp_path, world(tw=99, sent=10_001))
    assert files.snapshot().texts == world(tw=99, sent=10_001)
    files.close()


def test_a_file_too_long_to_be_read_often_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, {SCHEDSTAT: b"x" * 70_000, OWN_SCHEDSTAT: b"1 2 3\n"})
    files = ProcFiles(lambda: 5.0, root=tmp_path)
    snapshot = files.snapshot()
    assert snapshot.texts == {OWN_SCHEDSTAT: b"1 2 3\n"}
    assert snapshot.problems[SCHEDSTAT] == "65536 bytes or more; expected less"
    files.close()


def test_this_machine_says_how_it_is() -> None:
    clock = iter((1.0, 2.0))
    files = ProcFiles(lambda: next(clock))
    health = compare(files.snapshot(), files.snapshot())
    files.close()
    assert health.score is not None
    assert health.tcp is not None, health.unknown
    assert health.scheduling is not None, health.unknown


def monitored(
    tmp_path: Path, case: Callable[[HealthMonitor, ManualClock], Awaitable[None]], late_s: Sequence[float] = (0.0,)
) -> None:
    """A monitor of the files in a folder; its reads come as much later than they should as the last of `late_s`."""

    async def main() -> None:
        clock = ManualClock()
        monitor = HealthMonitor(ProcFiles(lambda: clock.now_s + late_s[-1], root=tmp_path), clock)
        running = asyncio.create_task(monitor.run())
        await settle()
        await case(monitor, clock)
        running.cancel()
        await settle()

    asyncio.run(main())


def test_a_stall_counts_for_about_a_second_and_then_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def case(monitor: HealthMonitor, clock: ManualClock) -> None:
        assert (monitor.health().score, monitor.health().source) == (None, None)
        seen = []
        for total in (0, 0, 500_000, 500_000, 500_000, 500_000):
            put(tmp_path, world(memory_us=total))
            await clock.advance(STEP_S / 2)
            memory = monitor.health().memory
            assert memory is not None
            seen.append(round(memory.points))
        assert seen == [100, 100, 67, 50, 67, 100], "half of a second and a half, of a second, of a second and a half"

    put(tmp_path, world(memory_us=0))
    monitored(tmp_path, case)
    assert [record.message for record in caplog.records] == ["health is read"]


def test_a_window_over_a_pause_of_the_machine_says_nothing(tmp_path: Path) -> None:
    async def case(monitor: HealthMonitor, clock: ManualClock) -> None:
        await clock.advance(STEP_S)
        assert monitor.health().score == 100
        late_s.append(LONGEST_S + 0.5)
        await clock.advance(STEP_S / 2)
        assert monitor.health().unknown == ("4.0 s between reads; expected a second",)
        await clock.advance(STEP_S)
        assert monitor.health().score == 100

    late_s = [0.0]
    put(tmp_path, world())
    monitored(tmp_path, case, late_s)


def test_the_goodbye_says_how_it_was_at_the_end(tmp_path: Path) -> None:
    monitors: list[HealthMonitor] = []

    async def case(monitor: HealthMonitor, clock: ManualClock) -> None:
        monitors.append(monitor)
        await clock.advance(STEP_S)
        put(tmp_path, world(memory_us=501_000))

    put(tmp_path, world())
    monitored(tmp_path, case)
    memory = monitors[0].health().memory
    assert memory is not None
    assert memory.points == 50


def test_nothing_is_known_before_half_a_second_has_gone_by(tmp_path: Path) -> None:
    async def case(monitor: HealthMonitor, clock: ManualClock) -> None:
        await clock.advance(LEAST_S - 0.01)
        assert monitor.health().unknown == ("nothing was read yet",)
        await clock.advance(0.01)
        assert monitor.health().score == 100

    put(tmp_path, world())
    monitored(tmp_path, case)
