"""The program that counts connections in the kernel: its bytes, and the real thing where the kernel lets it in."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import agents.health.kernel_events
from agents.health.bytecode import COUNTS, STATES, State, entered_time_wait, established, program
from agents.health.kernel_events import KernelEvents, KernelEventsError, load

TIMES = 20


def test_the_program_is_17_instructions_that_name_the_map_and_jump_to_their_end() -> None:
    code = program(77)
    assert len(code) == 17 * 8
    lines = [code[at : at + 8] for at in range(0, len(code), 8)]
    assert lines[9] == bytes([0x18, 0x11]) + bytes(2) + (77).to_bytes(4, "little"), "r1 = the map of file 77"
    assert lines[10] == bytes(8)
    assert lines[11] == bytes([0x85, 0, 0, 0, 1, 0, 0, 0]), "map_lookup_elem"
    jump = int.from_bytes(lines[12][2:4], "little", signed=True)
    assert lines[12 + 1 + jump][0] == 0xB7, "from the null check to r0 = 0"
    assert lines[-1] == bytes([0x95]) + bytes(7)


def test_changes_of_state_become_connections_and_time_waits() -> None:
    counts = [0] * COUNTS
    for place, (old, new) in enumerate(
        [
            (State.SYN_SENT, State.ESTABLISHED),
            (State.SYN_RECV, State.ESTABLISHED),
            (State.FIN_WAIT2, State.CLOSE),
            (State.CLOSING, State.CLOSE),
            (State.ESTABLISHED, State.FIN_WAIT1),
            (State.SYN_SENT, State.CLOSE),
        ]
    ):
        counts[old * STATES + new] = 10**place
    assert established(counts) == 11
    assert entered_time_wait(counts) == 1_100


@pytest.fixture
def kernel() -> Iterator[KernelEvents]:
    """Counting, in the kernel of this machine. Where it is not allowed to, the test is skipped with its reason."""
    try:
        events = load()
    except KernelEventsError as cause:
        pytest.skip(f"eBPF: {cause}")
    yield events
    events.close()


def test_the_kernel_counts_connections_as_they_come_and_go(kernel: KernelEvents) -> None:
    before = kernel.read()
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(TIMES):
            here = socket.create_connection(server.getsockname())
            there, _ = server.accept()
            here.close()
            there.close()
        refused = socket.socket()
        refused.bind(("127.0.0.1", 0))
        for _ in range(TIMES):
            with socket.socket() as caller:
                assert caller.connect_ex(refused.getsockname()) != 0
        refused.close()
    after = kernel.read()
    # Other processes connect too. Both ends of each connection are here, and only who closes first waits.
    assert after[0] - before[0] >= 2 * TIMES
    assert after[1] - before[1] >= TIMES


def held() -> int:
    """Files of the kernel's programs that this process has open."""
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum("bpf" in str(link) for link in links)


def test_what_was_loaded_is_gone_once_closed() -> None:
    try:
        events = load()
    except KernelEventsError as cause:
        pytest.skip(f"eBPF: {cause}")
    assert held() == 2, "what is attached, and the map's memory"
    events.close()
    assert held() == 0


def test_a_program_that_the_verifier_refuses_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        load().close()
    except KernelEventsError as cause:
        pytest.skip(f"eBPF: {cause}")
    # Without its null check the program may write to address 0: exactly what a verifier is for.
    whole = program(0)
    unchecked = whole[: 12 * 8] + whole[13 * 8 :]

    def broken(counts_file: int) -> bytes:
        return program(counts_file)[: 12 * 8] + unchecked[12 * 8 :]

    monkeypatch.setattr(agents.health.kernel_events, "program", broken)
    with pytest.raises(KernelEventsError, match=r"refused the program: Permission denied; .*; its verifier: "):
        load()
    assert held() == 0


@pytest.mark.parametrize(("machine", "platform"), [("m68k", "linux"), ("x86_64", "darwin")])
def test_on_a_machine_it_was_not_made_for_it_says_so(
    machine: str, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(KernelEventsError, match=f"{platform} on {machine}; expected linux on x86_64, "):
        load()
