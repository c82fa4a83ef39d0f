"""The three commands of `fleetbeat state` from arguments to exit status."""

import asyncio
import json
import logging
import sys
from collections.abc import Collection, Coroutine
from enum import IntEnum
from typing import TypeVar

from schemas.kafka import Brokers
from streams.engine.page_heads import SLO_FORMAT
from streams.state.changes import Plan, carry_out, plan_rebuild, plan_reset, utc
from streams.state.cluster import StateError, connected
from streams.state.survey import FAMILIES, SLO, PartitionState, Survey, as_json, survey

ResultT = TypeVar("ResultT")

_NONE = "-"


class Exit(IntEnum):
    """What a script can tell from the exit status."""

    DONE = 0
    UNSOUND = 1
    CANNOT_RUN = 2


class AskedWronglyError(ValueError):
    """The arguments do not name a state."""


def families_of(names: Collection[str]) -> tuple[str, ...]:
    """The families that were named, all without any. Raises AskedWronglyError."""
    if wrong := [name for name in names if name not in FAMILIES]:
        raise AskedWronglyError(f"--family {wrong[0]}: expected {' or '.join(FAMILIES)}")
    return tuple(family for family in FAMILIES if not names or family in names)


def refuse_without_rows(**given: object) -> None:
    """Options of a rebuild from raw rows, given to one from what Kafka keeps. Raises AskedWronglyError.

    That one makes everything anew: whoever names a partition must not lose the others.
    """
    if named := [
        f"--{name.strip('_').replace('_', '-')}" for name, value in given.items() if value not in (None, (), False)
    ]:
        raise AskedWronglyError(
            f"{' '.join(named)} without --clickhouse, which makes all tables anew; expected --clickhouse URL"
        )


def run_show(brokers: Brokers, families: Collection[str], partitions: Collection[int], *, as_lines: bool) -> int:
    """Prints what there is; Exit.UNSOUND when a page cannot be read or is of a newer version."""
    found = _run(_survey(brokers, families_of(families), partitions))
    if not as_lines:
        print(json.dumps(as_json(found)))
    else:
        print("\n".join(table(found)))
    unsound = any(state.unreadable or state.newer for state in found.states)
    return Exit.UNSOUND if unsound else Exit.DONE


def run_reset(brokers: Brokers, families: Collection[str], partitions: Collection[int], *, yes: bool) -> int:
    """Deletes state after a confirmation; returns an Exit. Raises StateError."""
    return _run(_change(brokers, families_of(families), partitions, yes=yes, rebuild=False))


def run_rebuild(brokers: Brokers, families: Collection[str], *, yes: bool) -> int:
    """Deletes state and has it counted again from as far back as possible; returns an Exit. Raises StateError."""
    return _run(_change(brokers, families_of(families), (), yes=yes, rebuild=True))


async def _survey(brokers: Brokers, families: Collection[str], partitions: Collection[int]) -> Survey:
    async with connected(brokers) as cluster:
        return await survey(cluster, families, partitions)


async def _change(
    brokers: Brokers, families: Collection[str], partitions: Collection[int], *, yes: bool, rebuild: bool
) -> Exit:
    async with connected(brokers) as cluster:
        await cluster.require_no_worker()
        found = await survey(cluster, families, partitions)
        whole = not partitions
        plan = plan_rebuild(found, families) if rebuild else plan_reset(found, families, everything=whole)
        _tell(plan, found)
        if not (yes or await asyncio.to_thread(confirmed)):
            print("nothing was changed", file=sys.stderr)
            return Exit.CANNOT_RUN
        await carry_out(cluster, plan, found)
        print("done: start the workers")
        return Exit.DONE


def _tell(plan: Plan, found: Survey) -> None:
    pages = sum(map(len, plan.tombstones.values()))
    size = sum(state.bytes for state in found.states)
    print(f"{pages} pages of {size} bytes and {len(plan.commits)} commits are deleted")
    for sentence in plan.sentences:
        print(sentence)


def confirmed() -> bool:
    """Whether somebody at the terminal says yes. Raises AskedWronglyError when nobody is there."""
    if not sys.stdin.isatty():
        raise AskedWronglyError("nobody can be asked here; expected --yes")
    print("Go on? [yes/no] ", end="", flush=True)
    return sys.stdin.readline().strip() == "yes"


def _run(work: Coroutine[None, None, ResultT]) -> ResultT:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its words come as a StateError
    return asyncio.run(work)


def table(found: Survey) -> list[str]:
    """Lines for people."""
    heads = [
        "family",
        "part",
        "pages",
        "bytes",
        "applied",
        "commit",
        "log end",
        "lag",
        "complete to",
        "holds",
        "owners",
    ]
    rows = [heads, *(_row(state) for state in found.states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    lines.append(
        f"{found.partitions} partitions, pages of format {SLO_FORMAT}, {len(found.members)} members in the group"
    )
    lines += [f"{topic}: id {topic_id or _NONE}" for topic, topic_id in sorted(found.topic_ids.items())]
    for state in found.states:
        where = f"{state.family} partition {state.partition}"
        lines += [f"{where}: unreadable: {why}" for why in state.unreadable]
        lines += [f"{where}: {why}" for why in state.newer]
        if state.recreated:
            lines.append(f"{where}: all pages are of a topic that was deleted since; a worker goes on from them")
    return lines


def _row(state: PartitionState) -> list[str]:
    oldest = min((start for start, _ in state.chunks.values()), default=None)
    holds = f"{state.nodes} nodes" if state.family != SLO else _NONE if oldest is None else f"from {utc(oldest * 1000)}"
    return [
        state.family,
        str(state.partition),
        str(len(state.keys)),
        str(state.bytes),
        _NONE if state.applied is None else str(state.applied),
        _NONE if state.commit is None else str(state.commit.offset),
        str(state.log.end),
        str(state.lag),
        utc(min(state.frontiers.values())) if state.frontiers else _NONE,
        holds,
        ",".join(sorted(state.owners)) or _NONE,
    ]


__all__ = ["AskedWronglyError", "Exit", "StateError", "run_rebuild", "run_reset", "run_show"]
