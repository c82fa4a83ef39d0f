"""`fleetbeat agent` with a ledger of what it took, that may kill itself at a chosen point: PLAN, then its options.

PLAN is a Plan (agents.py) as JSON. The ledger says each record before the agent is asked to take it, and afterwards
what became of it; what was not said afterwards may be there or not. All that, and the rule that a control lacks, is
wired here, in a composition root of its own: the agent's code knows nothing of it.
"""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from agents.clock import SystemClock
from agents.kafka import KafkaPublisher
from agents.late import LatePublisher
from agents.publish import Drop
from agents.spool import layout
from agents.spool.files import Files
from agents.spool.journal import Stamp
from agents.spool.lane import SpoolLane
from agents.spool.segments import SUFFIX
from agents.spool.store import Store
from fleetbeat import main
from tests.faults.driver.agents import Plan

# The client sends a batch at once; then it is on its way.
ON_ITS_WAY_S = 0.005


class Point:
    """Ends the process when the named point was passed so many times."""

    def __init__(self, name: str | None, nth: int) -> None:
        self._name = name
        self._left = nth

    def comes(self, name: str) -> bool:
        """Whether this is the moment."""
        if name != self._name:
            return False
        self._left -= 1
        return self._left == 0

    def passed(self, name: str) -> None:
        if self.comes(name):
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Blind(int):
    """A checksum that no other differs from."""

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


def keep_ledger(ledger: Path, prefix: str, point: Point) -> None:
    """Of every record that is offered; and topics of another name, for whoever is not to be mixed with others."""
    out = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    start, send, room, offer = KafkaPublisher.__init__, KafkaPublisher.offer, KafkaPublisher.room, LatePublisher.offer

    def said(line: str) -> None:
        os.write(out, f"{line}\n".encode())

    def named_init(self: KafkaPublisher, *given: Any, **named: Any) -> None:  # noqa: ANN401 - whatever it takes
        options, node, lanes, *rest = given
        start(self, options, node, {f"{prefix}{topic}": lane for topic, lane in lanes.items()}, *rest, **named)

    def named_offer(self: KafkaPublisher, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:
        return send(self, f"{prefix}{topic}", value, can_wait=can_wait)

    def told_offer(self: LatePublisher, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:
        said(f"offer {topic} {base64.b64encode(value).decode()}")
        point.passed("offered")
        reason = offer(self, topic, value, can_wait=can_wait)
        point.passed("taken")
        said("took" if reason is None else f"refused {reason}")
        point.passed("accepted")
        return reason

    async def named_room(self: KafkaPublisher, topic: str) -> None:
        await room(self, f"{prefix}{topic}")

    KafkaPublisher.__init__ = named_init  # type: ignore[method-assign]
    KafkaPublisher.offer = named_offer  # type: ignore[method-assign]
    LatePublisher.offer = told_offer  # type: ignore[method-assign]
    KafkaPublisher.room = named_room  # type: ignore[method-assign]


def wire_deaths(point: Point) -> None:
    fly, acknowledge, write, send = SpoolLane.fly, SpoolLane.acknowledge, Files.write, AIOKafkaProducer.send_batch

    def doomed_fly(self: SpoolLane, stamp: Stamp) -> bool:
        flies = fly(self, stamp)
        point.passed("flown")
        return flies

    def doomed_acknowledge(self: SpoolLane) -> None:
        point.passed("acknowledged")
        acknowledge(self)

    def doomed_write(self: Files, descriptor: int, data: bytes, offset: int) -> int:
        what = "record" if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(SUFFIX) else "journal"
        if point.comes(f"half-{what}"):
            write(self, descriptor, data[: len(data) // 2], offset)
            die()
        return write(self, descriptor, data, offset)

    async def doomed_send(self: AIOKafkaProducer, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - aiokafka's future
        ack: Any = await send(self, *args, **named)
        if point.comes("unacked"):
            asyncio.get_running_loop().call_later(ON_ITS_WAY_S, die)
        return ack

    SpoolLane.fly = doomed_fly  # type: ignore[method-assign]
    SpoolLane.acknowledge = doomed_acknowledge  # type: ignore[method-assign]
    Files.write = doomed_write  # type: ignore[method-assign]
    AIOKafkaProducer.send_batch = doomed_send


def wire_clock(told: Path) -> None:
    """The time of day is off by as many ms as a file says."""

    def wall_ms(self: SystemClock) -> int:  # noqa: ARG001 - as it is
        return time.time_ns() // 1_000_000 + off_ms(told)

    SystemClock.wall_ms = wall_ms  # type: ignore[method-assign]


def off_ms(told: Path) -> int:
    return int(told.read_text(encoding="ascii"))


def take_out(rule: str, clock: Path | None) -> None:
    """The rule that a control lacks."""
    match rule:
        case "flights":  # the journal says what is on its way

            def forgets(self: Store, stamp: Stamp) -> None:  # noqa: ARG001 - as fly
                self._flight = None

            Store.fly = forgets  # type: ignore[method-assign]
        case "kept":  # what the disk does not take is kept, or it is not taken

            def loses(self: SpoolLane, value: bytes, now_s: float) -> None:  # noqa: ARG001 - as _keep
                return None

            SpoolLane._keep = loses  # type: ignore[method-assign]
        case "checksums":
            usual = layout.checksum
            layout.checksum = lambda data: Blind(usual(data))
        case "monotonic":  # ages are not told by the time of day
            assert clock is not None

            def by_the_wall(self: SystemClock) -> float:  # noqa: ARG001 - as monotonic_s
                return time.time() + off_ms(clock) / 1_000

            SystemClock.monotonic_s = by_the_wall  # type: ignore[method-assign]
        case _:
            raise ValueError(f"no such rule: {rule}")


def run(plan: Plan, options: list[str]) -> int:
    point = Point(plan.point, plan.nth)
    clock = None if plan.clock is None else Path(plan.clock)
    keep_ledger(Path(plan.ledger), plan.prefix, point)
    wire_deaths(point)
    if clock is not None:
        wire_clock(clock)
    if plan.without is not None:
        take_out(plan.without, clock)
    return main(["agent", *options])


if __name__ == "__main__":
    sys.exit(run(Plan(**json.loads(sys.argv[1])), sys.argv[2:]))
