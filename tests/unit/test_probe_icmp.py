"""Echo requests: over both kinds of sockets on loopback, and by a fake one that loses, repeats and refuses."""

import asyncio
import errno
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.probes import icmp
from agents.probes.addresses import Address
from agents.probes.base import Down, Failure, Outcome, Timeout, Up
from agents.probes.ping import CannotPingError, Reply, check_may_ping
from agents.probes.registry import probe_kind

ROOT = Path(__file__).parents[2]
LOOPBACKS = ["127.0.0.1", *(["::1"] if Path("/proc/net/if_inet6").exists() else [])]

# Runs in a network of its own, where everybody may ping without privileges, as a user who has none.
IN_A_NETWORK_OF_ITS_OWN = f"""
{sys.executable} -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))' # SIOCSIFFLAGS: up and running
echo "0 2147483647" > /proc/sys/net/ipv4/ping_group_range
exec setpriv --reuid 65534 --regid 65534 --clear-groups {sys.executable} -c '
import asyncio
from agents.probes.registry import probe_kind
kind = probe_kind("icmp")
for host in {json.dumps(LOOPBACKS)}:
    probe = kind.build(kind.config.model_validate(dict(host=host, interval_ms=1)))
    print(asyncio.run(probe.run(10.0)).notes[0])
'"""


def ping(deadline_s: float = 10.0, **config: object) -> Outcome:
    settings = icmp.IcmpConfig.model_validate({"host": "127.0.0.1", "interval_ms": 1, **config})
    return asyncio.run(icmp.IcmpProbe(settings).run(deadline_s))


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("size", [8, 57, 4_000])
def test_a_host_that_is_there_answers(host: str, size: int) -> None:
    try:
        check_may_ping()
    except CannotPingError as cause:
        pytest.skip(str(cause))
    outcome = ping(host=host, size=size)
    assert isinstance(outcome, Up), outcome
    assert f"{host}, " in outcome.notes[0]
    assert "3 sent, 3 received" in outcome.notes[0]
    assert outcome.latency_us == outcome.phases.first_byte_us
    assert outcome.latency_us > 0


def test_who_has_no_privilege_uses_the_kernel_s_own_socket() -> None:
    tools = [shutil.which(tool) for tool in ("unshare", "setpriv")]
    if os.geteuid() or not all(tools):
        pytest.skip("only root makes a network of its own, with unshare and setpriv")
    command = ["unshare", "-n", "sh", "-ec", IN_A_NETWORK_OF_ITS_OWN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if "unshare failed" in done.stderr or "Read-only" in done.stderr:
        pytest.skip(f"this host gives no network of its own: {done.stderr}")
    lines = done.stdout.splitlines()
    assert len(lines) == len(LOOPBACKS), done.stderr
    assert all("unprivileged socket: 3 sent, 3 received" in line for line in lines), lines


def test_who_may_not_ping_is_told_at_load_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(socket, "socket", refuse)
    kind = probe_kind("icmp")
    with pytest.raises(ValueError, match=r"group \d+ may not send ICMP: net.ipv4.ping_group_range is .*-.*; expected"):
        kind.build(kind.config.model_validate({"host": "127.0.0.1"}))


Answer = Callable[[int, bytes], list[Reply | OSError]]


class FakeSocket:
    """Answers each request as it is told, over a pair of sockets that only wakes the event loop."""

    kind = "fake"
    answer: Answer

    def __init__(self, address: Address) -> None:
        self.address = address
        self.waiting: list[Reply | OSError] = []
        self.near, self.far = socket.socketpair()
        self.near.settimeout(0)

    def fileno(self) -> int:
        return self.near.fileno()

    def send(self, seq: int, payload: bytes) -> None:
        answers = type(self).answer(seq, payload[:8])
        self.waiting += answers
        self.far.send(b"x" * len(answers))

    def receive(self, token_bytes: int) -> Reply | None:
        assert token_bytes == 8
        self.near.recv(1)
        reply = self.waiting.pop(0)
        if isinstance(reply, OSError):
            raise reply
        return reply

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    monkeypatch.setattr(icmp, "PingSocket", FakeSocket)

    def answering(answer: Answer) -> None:
        FakeSocket.answer = staticmethod(answer)

    gc.collect()  # what earlier tests left would be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a look at the kernel, not at files
    yield answering
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def first_of(count: int) -> Answer:
    return lambda seq, token: [Reply(seq, token, None)] if seq < count else []


def all_of(*extra: Callable[[int, bytes], Reply | OSError]) -> Answer:
    return lambda seq, token: [Reply(seq, token, None), *(make(seq, token) for make in extra)]


UNREACHABLE = OSError(errno.EHOSTUNREACH, "No route to host")


@pytest.mark.parametrize(
    ("answer", "config", "said"),
    [
        pytest.param(first_of(3), {}, None, id="all come back"),
        pytest.param(first_of(2), {}, None, id="one of three is lost, as is allowed"),
        pytest.param(first_of(1), {}, ("loss", "3 sent, 1 received"), id="two of three are lost"),
        pytest.param(
            first_of(2), {"max_loss_percent": 0}, ("loss", "33 % lost; expected at most 0 %"), id="none may be"
        ),
        pytest.param(first_of(3), {"max_rtt_ms": 0.000_001}, ("rtt", "ms; expected at most 1e-06"), id="too far away"),
        pytest.param(all_of(lambda seq, token: Reply(seq, token, None)), {}, None, id="each comes back twice"),
    ],
)
def test_what_comes_back_is_judged(
    answer: Answer, config: dict[str, Any], said: tuple[str, str] | None, faked: Callable[[Answer], None]
) -> None:
    faked(answer)
    for deadline_s in (0.3, 1.2, 4.8):  # a machine that does much else is given more time
        outcome = ping(deadline_s, **config)
        if not isinstance(outcome, Timeout):
            break
    if said is None:
        assert isinstance(outcome, Up), outcome
    else:
        assert isinstance(outcome, Down), outcome
        assert (outcome.reason, said[1] in outcome.detail, outcome.failure) == (said[0], True, Failure.VALIDATION)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(first_of(0), id="silence"),
        pytest.param(lambda seq, _: [Reply(seq, b"stranger", None)], id="replies that a stranger made up"),
        pytest.param(lambda seq, token: [Reply(seq + 3, token, None)], id="replies to what was not asked"),
    ],
)
def test_without_a_reply_of_the_host_it_is_a_timeout(answer: Answer, faked: Callable[[Answer], None]) -> None:
    faked(answer)
    assert isinstance(ping(0.2), Timeout)


def test_a_router_that_says_no_is_heard(faked: Callable[[Answer], None]) -> None:
    faked(lambda _seq, _token: [UNREACHABLE])
    outcome = ping(5.0)
    assert isinstance(outcome, Down)
    assert (outcome.reason, outcome.failure) == ("unreachable", Failure.TRANSPORT)


def test_the_kernel_s_time_counts_so_that_a_busy_agent_does_not_make_hosts_look_far_away(
    faked: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 10**18
    monkeypatch.setattr("agents.probes.icmp.time.time_ns", lambda: now_ns)
    monkeypatch.setattr(
        "agents.probes.icmp.time.perf_counter_ns", iter(range(0, 10**15, 10**9)).__next__
    )  # a second goes by each time
    faked(lambda seq, token: [Reply(seq, token, now_ns + 250_000)])
    outcome = ping(60.0)
    assert outcome.latency_us == 250
