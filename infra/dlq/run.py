"""The three commands of `fleetbeat dlq` from arguments to exit status."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from enum import IntEnum

from infra import InfraError
from infra.dlq.corrections import Corrections, judge
from infra.dlq.letters import Entry, Inventory, Origin, Wanted, groups, parse_place, parse_since
from infra.dlq.lists import show_entries, show_groups
from infra.dlq.log import LetterAt, Progress, read_letters, read_notes
from infra.dlq.replay import Replayer
from infra.dlq.show import as_json as letter_as_json
from infra.dlq.show import as_lines
from infra.dlq.tally import Tally
from infra.dlq.wire import TakenOverError, fenced
from infra.progress import Board
from infra.topics.cluster import connected
from infra.topics.command import quiet_client
from schemas.kafka import Brokers

BATCH_RECORDS = 1_000
BATCH_BYTES = 4 << 20
# Nobody wants to hear of work that is done before they have read about it.
_QUIET_S = 2.0
_STOPPED = "fleetbeat: stopped before the end; run it again for the rest"


class Exit(IntEnum):
    """What a script can tell from the exit status."""

    DONE = 0
    SOME_LEFT = 1
    CANNOT_RUN = 2


def wanted(topic: str | None, reason: str | None, since: str | None, places: Sequence[str] = ()) -> Wanted:
    """The selection that the arguments mean. Raises AskedWronglyError."""
    since_ms = None if since is None else parse_since(since, time.time_ns() // 1_000_000)
    return Wanted(topic, reason, since_ms, frozenset(map(parse_place, places)))


def run_list(brokers: Brokers, asked: Wanted, limit: int, *, by_reason: bool, as_json: bool) -> int:
    """Prints letters or counts of them; returns an Exit."""
    return _run(_list(brokers, asked, limit, by_reason=by_reason, as_json=as_json))


def run_show(brokers: Brokers, asked: Wanted, *, as_json: bool) -> int:
    """Prints the letters about one place, which are several when a topic was created anew; returns an Exit."""
    return _run(_show(brokers, asked, as_json=as_json))


def run_replay(  # noqa: PLR0913 - what the command line takes
    brokers: Brokers, asked: Wanted, limit: int | None, corrections: Corrections, *, yes: bool, as_json: bool
) -> int:
    """Sends letters back, or tells what would be sent; returns an Exit."""
    try:
        return _run(_replay(brokers, asked, limit, corrections, yes=yes, as_json=as_json))
    except KeyboardInterrupt:  # before anything was sent: then it is the event of `_stop_asked`
        print(_STOPPED, file=sys.stderr)
        return Exit.SOME_LEFT


async def _list(brokers: Brokers, asked: Wanted, limit: int, *, by_reason: bool, as_json: bool) -> Exit:
    with _progress() as progress:
        async with connected(brokers):
            inventory = await _take_inventory(brokers, asked, progress)
            notes = await read_notes(brokers, progress)
    if by_reason:
        show_groups(groups(inventory.entries.values(), notes.done), as_json=as_json)
        return Exit.DONE
    shown = inventory.newest(limit)
    show_entries(shown, notes, as_json=as_json)
    if len(shown) < len(inventory.entries) or not shown:
        print(f"{len(shown):,} of {len(inventory.entries):,} dead letters", file=sys.stderr)
    return Exit.DONE


async def _show(brokers: Brokers, asked: Wanted, *, as_json: bool) -> Exit:
    found: dict[Origin, LetterAt] = {}
    with _progress() as progress:
        async with connected(brokers):
            async for at in read_letters(brokers, None, progress):
                origin = Origin.of(at.letter)
                if asked.selects(at.letter) and (origin not in found or found[origin].told_ms <= at.told_ms):
                    found[origin] = at
            notes = await read_notes(brokers, progress)
    for at in found.values():
        print(json.dumps(letter_as_json(at, notes)) if as_json else "\n".join(as_lines(at, notes)))
    if not found:
        print(f"fleetbeat: no dead letter is about {', '.join(asked.places)}", file=sys.stderr)
    return Exit.DONE if found else Exit.SOME_LEFT


async def _replay(  # noqa: PLR0913 - as above
    brokers: Brokers, asked: Wanted, limit: int | None, corrections: Corrections, *, yes: bool, as_json: bool
) -> Exit:
    tally = Tally()
    stopped = False
    with _progress() as progress:
        async with connected(brokers):
            inventory = await _take_inventory(brokers, asked, progress)
            chosen = inventory.newest(limit)
            for place in sorted(asked.places - {entry.origin.place for entry in chosen}):
                tally.leave(place.split("/")[0], "no-letter", f"{place}: no dead letter is about it")
            async with aclosing(_batches(brokers, chosen, tally, progress)) as batches:
                if yes:
                    stopped = await _send(brokers, corrections, batches, tally)
                else:
                    await _pretend(brokers, corrections, batches, tally)
    _tell(tally, yes=yes, as_json=as_json)
    if stopped:
        print(_STOPPED, file=sys.stderr)
    return Exit.SOME_LEFT if tally.left or stopped else Exit.DONE


async def _send(
    brokers: Brokers, corrections: Corrections, batches: AsyncIterator[list[LetterAt]], tally: Tally
) -> bool:
    """Whether it was stopped before the end."""
    async with fenced(brokers) as wire:
        stop = _stop_asked()
        # only now: what an earlier replay did is complete once it is fenced
        replayer = Replayer(wire, await read_notes(brokers, lambda _: None), corrections)
        tally.settled = await replayer.settle()
        async for letters in batches:
            if stop.is_set():
                break
            tally.add(await replayer.replay(letters))
        return stop.is_set()


async def _pretend(
    brokers: Brokers, corrections: Corrections, batches: AsyncIterator[list[LetterAt]], tally: Tally
) -> None:
    done = (await read_notes(brokers, lambda _: None)).done
    async for letters in batches:
        tally.add(judge([each.letter for each in letters], corrections, done))


async def _take_inventory(brokers: Brokers, asked: Wanted, progress: Progress) -> Inventory:
    inventory = Inventory(asked)
    async for at in read_letters(brokers, asked.since_ms, progress):
        inventory.add(at.letter, at.partition, at.offset, at.told_ms)
    return inventory


async def _batches(
    brokers: Brokers, chosen: Sequence[Entry], tally: Tally, progress: Progress
) -> AsyncGenerator[list[LetterAt]]:
    """The chosen letters with their bytes, read once more, since all at once may not fit into memory."""
    if not chosen:
        return
    missing = {(entry.partition, entry.offset): entry for entry in chosen}
    batch: list[LetterAt] = []
    size = 0
    oldest_ms = min(entry.origin.append_ms for entry in chosen)
    async with aclosing(read_letters(brokers, oldest_ms, progress)) as letters:
        async for at in letters:
            if missing.pop((at.partition, at.offset), None) is not None:
                batch.append(at)
                size += len(at.letter.value or b"")
            if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
    for entry in missing.values():
        tally.leave(entry.origin.topic, "deleted", f"{entry.origin.place}: retention took the letter meanwhile")


def _tell(tally: Tally, *, yes: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tally.as_json()))
        return
    for line in tally.as_lines():
        print(line)
    if not yes and tally.ready:
        print("nothing was sent: --yes sends")


def _run(work: Coroutine[None, None, Exit]) -> int:
    try:
        with quiet_client():
            return asyncio.run(work)
    except TakenOverError as cause:
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return Exit.SOME_LEFT
    except InfraError as cause:
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return Exit.CANNOT_RUN


def _stop_asked() -> asyncio.Event:
    """Set by Ctrl-C or SIGTERM: the batch in hand is finished, so that nobody has to find out later how far it came."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


@contextmanager
def _progress() -> Iterator[Progress]:
    board = Board(sys.stderr)
    begun_s = time.monotonic()

    def status(line: str) -> None:
        if time.monotonic() - begun_s > _QUIET_S:
            board.status(line)

    try:
        yield status
    finally:
        board.settle()
