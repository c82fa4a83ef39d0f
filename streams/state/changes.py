"""Beginning anew: what is deleted, what is counted again from the logs, and what is lost by it."""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

import polars as pl
from aiokafka.structs import TopicPartition

from streams.core.rows import OPEN_SCHEMA
from streams.core.series import SeriesIndex
from streams.core.slices import LATENESS_MS, SLICE_MS
from streams.core.sources import SOURCES
from streams.core.table import SloTable
from streams.engine.commit_notes import Note
from streams.engine.page_heads import Origin
from streams.engine.pages import OPEN, page_key, write_open
from streams.processors.node_recovery import SOURCE as HEARTBEATS
from streams.processors.slo_parts import OBJECTIVES, PLAIN
from streams.processors.slo_recovery import PAGES_TOPIC as SLO_PAGES
from streams.processors.slo_recovery import PARTIALS
from streams.state.cluster import Cluster, Commit, Log, StateError
from streams.state.survey import INPUT_OF, PAGES_OF, SLO, Survey


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done. `jump`: partitions of slo-partials that are read from their end, their log left out.

    `sentences` say what is lost, and what is counted again.
    """

    tombstones: dict[str, list[tuple[int, bytes, bytes | None]]]
    commits: list[TopicPartition]
    jump: dict[int, int]
    sentences: list[str]


def require_one_count(found: Survey) -> None:
    """Raises StateError: what a log holds for another number of partitions is not for those that there are now."""
    counts = {origin.partitions for state in found.states for origin in state.origins if origin.partitions}
    if counts - {found.partitions}:
        raise StateError(
            f"the state was written with {sorted(counts)} partitions, topics have {found.partitions}; expected the "
            "same, as slo-partials are for those of before: `fleetbeat state rebuild` leaves them out"
        )


def plan_reset(found: Survey, families: Collection[str], *, everything: bool) -> Plan:
    """Pages go, and what their input still holds is counted again; `everything`: no partition was named."""
    require_one_count(found)
    plan = _deletion(found, families)
    for family in families:
        topic = INPUT_OF[family]
        logs = {state.partition: state.log for state in found.states if state.family == family}
        plan.commits.extend(TopicPartition(topic, partition) for partition in logs)
        plan.sentences.append(_told(family, topic, logs))
    if SLO in families and everything:
        plan.commits.extend(TopicPartition(*place) for place in found.sources)
    return plan


def plan_rebuild(found: Survey, families: Collection[str]) -> Plan:
    """As a reset, but objectives and series come from the records of their sources, which are kept longer."""
    plan = _deletion(found, families)
    for family in families:
        topic = INPUT_OF[family]
        logs = {state.partition: state.log for state in found.states if state.family == family}
        plan.commits.extend(TopicPartition(topic, partition) for partition in logs)
        if family == SLO:
            plan.commits.extend(TopicPartition(*place) for place in found.sources)
            plan.jump.update({partition: log.end for partition, log in logs.items()})
            for source in SOURCES:
                logs = {p: log for (name, p), (log, _) in found.sources.items() if name == source}
                plan.sentences.append(_told(family, source, logs))
            continue
        plan.sentences.append(_told(family, topic, logs))
    return plan


async def carry_out(cluster: Cluster, plan: Plan, found: Survey) -> None:
    """Commits go first: with pages and without a commit, a worker that starts in the middle counts everything once.

    Raises StateError, also when a worker has joined meanwhile.
    """
    await cluster.require_no_worker()
    await cluster.delete_commits(plan.commits)
    for topic, records in plan.tombstones.items():
        await cluster.write(topic, records)
    if plan.jump:
        origin = Origin(found.topic_ids.get(PARTIALS, ""), 0, found.partitions)
        await cluster.write(SLO_PAGES, [page for p, end in plan.jump.items() for page in empty_pages(p, end, origin)])
        note = Note("0", origin.topic_id, "", found.partitions)
        await cluster.commit({TopicPartition(PARTIALS, p): Commit(end, note) for p, end in plan.jump.items()})
    await cluster.require_no_worker()


def empty_pages(partition: int, end: int, origin: Origin) -> list[tuple[int, bytes, bytes | None]]:
    """Pages of tables that have taken in a partition of slo-partials up to its end, without anything in them."""
    index, owner = SeriesIndex(), f"rebuild-{secrets.token_hex(4)}"
    pages: list[tuple[int, bytes, bytes | None]] = []
    for family in (OBJECTIVES, PLAIN):
        table = SloTable(histograms_in_hours=family == OBJECTIVES)
        table.restore(end - 1, {}, pl.DataFrame(schema=OPEN_SCHEMA), {})
        pages.append((partition, page_key(family, OPEN, owner), write_open(table, origin, index)))
    return pages


def _deletion(found: Survey, families: Collection[str]) -> Plan:
    tombstones: dict[str, list[tuple[int, bytes, bytes | None]]] = {PAGES_OF[family]: [] for family in families}
    for state in found.states:
        tombstones[PAGES_OF[state.family]] += [(state.partition, key, None) for key in state.keys]
    return Plan(tombstones, [], {}, [])


def exact_from_ms(logs: Collection[Log]) -> int | None:
    """From when on nothing is missing that these logs have ever held; None when they still hold all."""
    cut = [log.first_ms if log.first_ms is not None else time.time_ns() // 1_000_000 for log in logs if log.begin > 0]
    return max(cut) + LATENESS_MS + SLICE_MS if cut else None


def utc(at_ms: int) -> str:
    """A time as people and other programs read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(-(-at_ms // 1_000)))


def _told(family: str, topic: str, logs: dict[int, Log]) -> str:
    what = "objectives and series" if family == SLO else "nodes"
    records = sum(log.end - log.begin for log in logs.values())
    at_ms = exact_from_ms(logs.values())
    again = f"{what}: {records} records of {topic} are counted again"
    if at_ms is None:
        return f"{again}; that is all there ever were: nothing is lost"
    lost = "older events are lost from the tables"
    if topic == HEARTBEATS:
        lost = "counts of heartbeats begin there, and nodes that have not spoken since are forgotten"
    return f"{again}; exact from {utc(at_ms)} on, {lost}"
