"""`fleetbeat state rebuild --clickhouse`: which partitions, whether that may be done, and in which order."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka.structs import TopicPartition

from schemas.kafka import Brokers
from streams.core.series import SeriesIndex
from streams.engine.commit_notes import Note
from streams.engine.page_heads import Origin, origin_now
from streams.engine.pages import PartPages
from streams.history.judging import judgings
from streams.history.rows import RawRows
from streams.options import USUAL_SERIES
from streams.processors.slo_parts import PartFolder, series_share
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS
from streams.slo_command import read_timeline
from streams.state.changes import utc
from streams.state.cluster import Cluster, Commit, StateError, connected
from streams.state.coverage import whole_from_s
from streams.state.kept import Input, LostError, read_pages, restored
from streams.state.reconcile import Say, inputs_of
from streams.state.reconcile_run import COULD_NOT, SpanError, endpoint_of, progress, seconds_of
from streams.state.refill import Refill, Stand, stand
from streams.state.run import AskedWronglyError, Exit, confirmed, families_of
from streams.state.survey import SLO


@dataclass(frozen=True, slots=True)
class RefillOptions:
    """As given on the command line; without partitions those whose pages are lost, or all of them with `force`."""

    brokers: Brokers
    clickhouse: str
    families: tuple[str, ...] = ()
    partitions: tuple[int, ...] = ()
    from_: str | None = None
    force: bool = False
    yes: bool = False
    series_max: int = USUAL_SERIES
    wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one partition: its pages, and why they do not make up its state; None when they do."""

    given: Input
    pages: PartPages
    lost: str | None


def run_refill(options: RefillOptions) -> int:
    """Makes pages and says what they hold; returns an Exit. Raises ValueError for what cannot be asked."""
    rows = RawRows(endpoint_of(options.clickhouse))
    if options.families and SLO not in families_of(options.families):
        raise AskedWronglyError(
            f"--family nodes beside --clickhouse: tables of nodes are made anew without it; expected {SLO}"
        )
    now = datetime.now(UTC)
    from_s = 0 if options.from_ is None else seconds_of("--from", options.from_, now)
    if from_s > now.timestamp():
        raise SpanError(f"--from {options.from_}: is still to come; expected a time that is over")
    if options.series_max < 1:
        raise AskedWronglyError(f"--series-max {options.series_max}: expected 1 or more, as the workers have it")
    try:
        with progress("reading pages") as say:
            return asyncio.run(_refilled(options, rows, from_s, say))
    except COULD_NOT as cause:
        sys.stderr.write(f"not rebuilt: {cause}\n")
        return Exit.UNSOUND


async def _refilled(options: RefillOptions, rows: RawRows, from_s: int, say: Say) -> Exit:
    timeline = await read_timeline(options.brokers)
    async with connected(options.brokers) as cluster:
        await cluster.require_no_worker()
        inputs = await inputs_of(cluster)
        found = {p: await _look(cluster, p, given) for p, given in inputs.items()}
        chosen = choose(found, options)
        if not chosen:
            print("no partition's pages are lost: nothing was changed (--force makes good ones anew)")
            return Exit.DONE
        say("waiting for the archive")
        standing = await stand(cluster, rows, options.wait_s)
        _tell({p: found[p] for p in chosen}, standing, from_s)
        if not (options.yes or await asyncio.to_thread(confirmed)):
            print("nothing was changed", file=sys.stderr)
            return Exit.CANNOT_RUN
        refill = Refill(
            rows,
            standing,
            judgings(timeline),
            len(inputs),
            {p: inputs[p].log.end for p in chosen},
            {p: origin_of(found[p]) for p in chosen},
            series_share(options.series_max, len(inputs)),
            from_s,
        )
        chunks, opens = await refill.pages(say)
        await _write(cluster, {p: found[p] for p in chosen}, chunks, opens)
        print(f"{len(chunks) + len(opens)} pages are written; {refill.events} events in the last ten minutes of them")
        print("done: start the workers; `fleetbeat reconcile` compares")
        return Exit.DONE


async def _look(cluster: Cluster, partition: int, given: Input) -> _Found:
    pages = await read_pages(cluster.brokers, partition)
    try:
        restored(partition, pages, given, PartFolder(SeriesIndex()))
    except LostError as cause:
        return _Found(given, pages, str(cause))
    return _Found(given, pages, None)


def choose(found: Mapping[int, _Found], options: RefillOptions) -> list[int]:
    """The partitions whose pages are made. Raises StateError for those that have good ones already."""
    if wrong := [partition for partition in options.partitions if partition not in found]:
        raise StateError(f"no partition {wrong[0]}; expected 0 to {len(found) - 1}")
    if not options.partitions:
        return [partition for partition, each in found.items() if options.force or each.lost is not None]
    good = [p for p in options.partitions if found[p].lost is None and any(found[p].pages.keys.values())]
    if good and not options.force:
        raise StateError(f"partition {good[0]} has good pages; expected none, or --force to make them anew")
    return sorted(set(options.partitions))


def origin_of(found: _Found) -> Origin:
    """The log that the new pages speak of: the one that there is now."""
    return origin_now(found.given.identity, [page.origin for page in found.pages.all()])


async def _write(
    cluster: Cluster,
    found: Mapping[int, _Found],
    chunks: Sequence[tuple[int, bytes, bytes | None]],
    opens: Sequence[tuple[int, bytes, bytes | None]],
) -> None:
    """The commit goes first: without the pages that it speaks of, no worker starts. Those that stand for all go last.

    Raises StateError, also when a worker has joined meanwhile.
    """
    await cluster.require_no_worker()
    ends = {TopicPartition(PARTIALS, p): _end(each) for p, each in found.items()}
    await cluster.commit({place: commit for place, commit in ends.items() if commit.offset})
    old = [(p, key, None) for p, each in found.items() for keys in each.pages.keys.values() for key in sorted(keys)]
    await cluster.write(PAGES_TOPIC, old)
    await cluster.write(PAGES_TOPIC, chunks)
    await cluster.require_no_worker()
    await cluster.write(PAGES_TOPIC, opens)


def _end(found: _Found) -> Commit:
    identity = found.given.identity
    return Commit(found.given.log.end, Note("0", identity.topic_id, "", identity.partitions))


def _tell(found: Mapping[int, _Found], standing: Stand, from_s: int) -> None:
    for partition, each in found.items():
        pages = sum(map(len, each.pages.keys.values()))
        print(f"partition {partition}: {pages} pages are replaced: {each.lost or 'they are good'}")
    since_s = max(from_s, whole_from_s(standing.reaches))
    print(
        f"the tables will be exact from {utc(since_s * 1_000)} on, older events are lost from them"
        if since_s
        else "the archive has all that there ever was: nothing is lost that tables keep"
    )
