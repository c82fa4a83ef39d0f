"""Nodes that send heartbeats until told otherwise, and what follows from the log of all of them."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from confluent_kafka import Producer

from schemas.codec import DecodeError, decode, encode
from schemas.records import Heartbeat, NodeState
from tests.integration.worker_process import now_ms, read_log

SOURCE = "heartbeats"
STATES = "node-states"
TICK_S = 0.02


@dataclass(slots=True)
class SimulatedNode:
    """A node between two heartbeats; `skipped` numbers of heartbeats were used and never sent."""

    node_id: str
    region: str = "eu-1"
    zone: str = "a"
    interval_ms: int = 1_000
    boot_ts: int = field(default_factory=now_ms)
    seq: int = 0
    heartbeat_seq: int = 0
    due_s: float = 0.0
    silent: bool = False

    def heartbeat(self, state: str = "UP") -> Heartbeat:
        beat = Heartbeat(
            node_id=self.node_id,
            ts=now_ms(),
            boot_id=f"boot-{self.boot_ts}",
            boot_ts=self.boot_ts,
            seq=self.seq,
            interval_ms=self.interval_ms,
            state=state,
            region=self.region,
            zone=self.zone,
            agent_version="test",
            health=97,
            cpu_permille=312,
            heartbeat_seq=self.heartbeat_seq,
        )
        self.seq += 3  # probes count as well
        self.heartbeat_seq += 1
        return beat


class NodeFleet(threading.Thread):
    """Sends what is due; one lock for all nodes."""

    def __init__(self, brokers: str, nodes: Iterable[SimulatedNode]) -> None:
        super().__init__()
        self.nodes = {node.node_id: node for node in nodes}
        self.sent = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._producer = Producer(
            {"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5, "partitioner": "murmur2_random"}
        )

    def run(self) -> None:
        try:
            while not self._ending.wait(TICK_S):
                now_s = time.monotonic()
                with self._lock:
                    for node in self.nodes.values():
                        if not node.silent and node.due_s <= now_s:
                            node.due_s = now_s + node.interval_ms / 1_000
                            self._send(node)
                self._producer.poll(0)
        except BaseException as failure:  # noqa: BLE001 - `end` raises it in the test's thread
            self._failure = failure

    def end(self) -> None:
        """No more heartbeats; all sent ones are in the log."""
        self._ending.set()
        if self.is_alive():
            self.join()
        self.flush()
        if self._failure is not None:
            raise self._failure

    def silence(self, *node_ids: str) -> float:
        """These nodes die without a word; returns the time (monotonic) after which nothing of them comes."""
        self._change(node_ids, lambda node: setattr(node, "silent", True))
        return time.monotonic()

    def goodbye(self, node_id: str) -> None:
        """A planned stop."""

        def leave(node: SimulatedNode) -> None:
            node.silent = True
            self._send(node, "GOODBYE")

        self._change([node_id], leave)

    def restart(self, *node_ids: str) -> None:
        """A new boot, with a heartbeat at once."""

        def boot(node: SimulatedNode) -> None:
            boot_ts = max(now_ms(), node.boot_ts + 1)
            self.nodes[node.node_id] = replace(
                node, boot_ts=boot_ts, seq=0, heartbeat_seq=0, silent=False, due_s=time.monotonic() + 0.1
            )
            self._send(self.nodes[node.node_id])

        self._change(node_ids, boot)

    def wake(self, *node_ids: str) -> None:
        """They speak again, in the same boot."""
        self._change(node_ids, lambda node: setattr(node, "silent", False))

    def lose(self, node_id: str, heartbeats: int) -> None:
        """The next heartbeats of a node never reach the log."""
        self._change([node_id], lambda node: setattr(node, "heartbeat_seq", node.heartbeat_seq + heartbeats))

    def send_raw(self, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        """A record of whoever."""
        self._producer.produce(SOURCE, key=key, value=value, partition=partition)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def _change(self, node_ids: Iterable[str], change: Callable[[SimulatedNode], None]) -> None:
        with self._lock:
            for node_id in node_ids:
                change(self.nodes[node_id])
        self.flush()

    def _send(self, node: SimulatedNode, state: str = "UP") -> None:
        self.send_raw(node.node_id.encode(), encode(node.heartbeat(state)))
        self.sent += 1


@dataclass(slots=True)
class Known:
    """What a node's records in the log amount to, by the rules written out once more."""

    newest: Heartbeat
    last_seen_ms: int
    heartbeats: int = 1
    lost: int = 0
    restarts: int = 0
    longest_pause_ms: int = 0


def known_from_log(brokers: str) -> dict[str, Known]:
    """Every node whose heartbeats are in the log: counted one by one, in order, each once."""
    found: dict[str, Known] = {}
    for record in read_log(brokers, SOURCE):
        try:
            beat = decode(record.value)
        except DecodeError:
            continue
        if not isinstance(beat, Heartbeat) or record.key != beat.node_id.encode():
            continue
        known = found.get(beat.node_id)
        if known is None:
            found[beat.node_id] = Known(beat, record.append_ms)
            continue
        before = known.newest
        if (beat.boot_ts, beat.seq) <= (before.boot_ts, before.seq):
            continue
        booted = beat.boot_ts > before.boot_ts
        expected = 0 if booted else (before.heartbeat_seq or 0) + 1
        known.lost += (beat.heartbeat_seq or 0) - expected
        known.restarts += booted
        known.heartbeats += 1
        known.longest_pause_ms = max(known.longest_pause_ms, record.append_ms - known.last_seen_ms)
        known.newest, known.last_seen_ms = beat, record.append_ms
    return found


def announced(brokers: str) -> list[NodeState]:
    """Everything in `node-states` but tombstones, each partition in order."""
    states = [decode(record.value) for record in read_log(brokers, STATES) if record.value is not None]
    return [state for state in states if isinstance(state, NodeState)]


def wrongly_silent(brokers: str) -> list[str]:
    """Nodes and zones of which it was said that they no longer speak, and whose heartbeats in the log never paused so.

    On a machine that stalls there are such pauses of nodes that nobody has silenced.
    """
    said = [state for state in announced(brokers) if state.state in {"DOWN", "OUTAGE"}]
    if not said:
        return []
    known, read_ms = known_from_log(brokers), now_ms()
    paused_ms = {name: max(node.longest_pause_ms, read_ms - node.last_seen_ms) for name, node in known.items()}

    def paused(state: NodeState) -> bool:
        if state.kind == "NODE":
            return paused_ms[state.subject] >= 3 * state.interval_ms + 1_000
        zone = {name: n for name, n in known.items() if (n.newest.region, n.newest.zone) == (state.region, state.zone)}
        missing = [name for name, node in zone.items() if paused_ms[name] >= 3 * node.newest.interval_ms]
        return 5 * len(missing) > len(zone)

    return [state.subject for state in said if not paused(state)]
