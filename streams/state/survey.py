"""What the state topics hold, partition by partition, as a worker would find it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from streams.core.liveness.pages import Position
from streams.core.slices import TIERS
from streams.core.sources import COUNTS, PROBES, SOURCES, place_of
from streams.engine.changelog import read_changelog
from streams.engine.frames import FrameError
from streams.engine.node_pages import read_page as read_node_page
from streams.engine.page_heads import Origin, PageFormatError
from streams.engine.pages import OPEN, PartPages, read_page
from streams.processors.node_recovery import PAGES_TOPIC as NODE_PAGES
from streams.processors.node_recovery import SOURCE as HEARTBEATS
from streams.processors.slo_recovery import PAGES_TOPIC as SLO_PAGES
from streams.processors.slo_recovery import PARTIALS
from streams.state.cluster import Cluster, Commit, Log, StateError

SLO, NODES = "slo", "nodes"
FAMILIES = (SLO, NODES)
PAGES_OF = {SLO: SLO_PAGES, NODES: NODE_PAGES}
INPUT_OF = {SLO: PARTIALS, NODES: HEARTBEATS}
TOPICS = (PROBES, PARTIALS, HEARTBEATS, SLO_PAGES, NODE_PAGES, COUNTS)


@dataclass(slots=True)
class PartitionState:
    """The pages of one family in one partition; `applied` and `commit` are offsets of its input.

    `frontiers`: of each source partition (slo: by lane), append time in ms. `chunks`: by tier, the first second and the
    end of the last one. `newer`: pages of a format that this version does not know.
    """

    family: str
    partition: int
    log: Log
    commit: Commit | None
    topic_id: str = ""
    keys: list[bytes] = field(default_factory=list)
    bytes: int = 0
    applied: int | None = None
    frontiers: dict[int, int] = field(default_factory=dict)
    chunks: dict[str, tuple[int, int]] = field(default_factory=dict)
    nodes: int = 0
    owners: set[str] = field(default_factory=set)
    origins: set[Origin] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)

    @property
    def lag(self) -> int:
        """Records of the input that are not in the pages."""
        read = 0 if self.applied is None else self.applied + 1
        return self.log.end - max(read, self.log.begin)

    @property
    def recreated(self) -> bool:
        """Whether all pages are of a topic that is not there any more."""
        named = {origin.topic_id for origin in self.origins if origin.topic_id}
        return bool(self.topic_id and named and self.topic_id not in named)


@dataclass(frozen=True, slots=True)
class Survey:
    """All that there is. `sources`: commits and logs of what rollups read, by topic and partition."""

    partitions: int
    topic_ids: dict[str, str]
    states: list[PartitionState]
    sources: dict[tuple[str, int], tuple[Log, Commit | None]]
    members: list[str]


async def survey(cluster: Cluster, families: Collection[str], partitions: Collection[int] = ()) -> Survey:
    """Reads all pages of some partitions, of all without any. Raises StateError and KafkaError."""
    counts = await cluster.partitions(TOPICS)
    if missing := [topic for topic in TOPICS if topic not in counts]:
        raise StateError(
            f"no topic {', '.join(missing)}; run `fleetbeat topics apply --brokers {cluster.brokers}` first"
        )
    wanted = sorted(set(partitions) or set(range(max(counts.values()))))
    known = min(counts.values())
    if wrong := [partition for partition in wanted if not 0 <= partition < max(counts.values())]:
        raise StateError(f"no partition {wrong[0]}; expected 0 to {known - 1}")
    ids, commits = await cluster.topic_ids(TOPICS), await cluster.commits()
    states = []
    for family in families:
        states += await _states(cluster, family, [p for p in wanted if p < counts[PAGES_OF[family]]], commits)
    for state in states:
        state.topic_id = ids.get(INPUT_OF[state.family], "")
    sources = {
        (topic, p): (log, commits.get((topic, p)))
        for topic in SOURCES
        for p, log in (await cluster.logs(topic, range(counts[topic]))).items()
    }
    return Survey(known, ids, states, sources, await cluster.members())


async def _states(
    cluster: Cluster, family: str, partitions: list[int], commits: dict[tuple[str, int], Commit]
) -> list[PartitionState]:
    topic, values = INPUT_OF[family], dict[int, dict[bytes, bytes]]()
    logs = await cluster.logs(topic, partitions)
    states = {p: PartitionState(family, p, logs[p], commits.get((topic, p))) for p in partitions}
    async for records in read_changelog(cluster.brokers, PAGES_OF[family], partitions):
        held = values.setdefault(records[0].partition, {})
        for record in records:
            if record.value is None:
                held.pop(record.key or b"", None)
            else:
                held[record.key or b""] = record.value
    for partition, held in values.items():
        state = states[partition]
        state.keys, state.bytes = list(held), sum(map(len, held.values()))
        (_read_slo if family == SLO else _read_nodes)(state, held)
    return list(states.values())


def _read_slo(state: PartitionState, held: dict[bytes, bytes]) -> None:
    pages = PartPages()
    for key, value in held.items():
        try:
            page = read_page(key, value)
            pages.apply(key, value)
        except PageFormatError as cause:
            state.newer.append(str(cause))
        except FrameError as cause:
            state.unreadable.append(str(cause))
        else:
            state.owners.add(page.epoch)
            state.origins.add(page.origin)
    best = [found[OPEN][0] for family in {page.family for page in pages.all()} if OPEN in (found := pages.of(family))]
    state.applied = min((page.applied for page in best), default=None)
    for page in best:
        for source, frontier in page.header["frontiers"].items():
            state.frontiers[int(source)] = min(state.frontiers.get(int(source), frontier), frontier)
    for tier, start, end in _stretches(pages):
        first, last = state.chunks.get(tier, (start, end))
        state.chunks[tier] = (min(first, start), max(last, end))


def _stretches(pages: PartPages) -> Iterator[tuple[str, int, int]]:
    lengths = {tier.name: tier.chunk_s for tier in TIERS}
    for _, part in pages.keys:
        if part != OPEN and pages.keys[_, part]:
            tier, start = part.split(":")
            yield tier, int(start), int(start) + lengths[tier]


def _read_nodes(state: PartitionState, held: dict[bytes, bytes]) -> None:
    nodes = set[str]()
    for key, value in held.items():
        try:
            origin, rows = read_node_page(value, state.partition)
        except PageFormatError as cause:
            state.newer.append(str(cause))
        except FrameError as cause:
            state.unreadable.append(str(cause))
        else:
            state.owners.add(key.decode(errors="replace").rpartition("/")[2])
            state.origins.add(origin)
            nodes |= set(rows["node_id"])
    state.nodes = len(nodes)
    position = Position.parse(state.commit.note.text) if state.commit else None
    state.applied = None if state.commit is None else state.commit.offset - 1
    if position is not None:
        state.frontiers = {state.partition: position.resume_frontier_ms}


def as_json(found: Survey) -> dict[str, Any]:
    """All of it, as JSON takes it."""
    return {
        "partitions": found.partitions,
        "topic_ids": found.topic_ids,
        "members": found.members,
        "states": [
            {
                "family": state.family,
                "partition": state.partition,
                "pages": len(state.keys),
                "bytes": state.bytes,
                "applied_offset": state.applied,
                "log_begin": state.log.begin,
                "log_end": state.log.end,
                "lag": state.lag,
                "commit": _commit(state.commit),
                "frontiers_ms": {_named(own): at for own, at in sorted(state.frontiers.items())},
                "chunks_s": {tier: list(stretch) for tier, stretch in sorted(state.chunks.items())},
                "nodes": state.nodes,
                "owners": sorted(state.owners),
                "topics": [origin.header for origin in sorted(state.origins, key=lambda o: o.generation)],
                "recreated": state.recreated,
                "unreadable": state.unreadable,
                "newer": state.newer,
            }
            for state in found.states
        ],
        "sources": {
            topic: {
                str(p): {"log_begin": log.begin, "log_end": log.end, "commit": _commit(commit)}
                for (name, p), (log, commit) in found.sources.items()
                if name == topic
            }
            for topic in SOURCES
        },
    }


def _named(lane: int) -> str:
    """Of probe-results the number alone, as ever."""
    source, partition = place_of(lane)
    return str(partition) if source == PROBES else f"{source}/{partition}"


def _commit(commit: Commit | None) -> dict[str, Any] | None:
    if commit is None:
        return None
    note = commit.note
    return {
        "offset": commit.offset,
        "text": note.text,
        "topic_id": note.topic,
        "into_topic_id": note.into,
        "partitions": note.partitions,
    }
