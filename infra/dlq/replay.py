"""Letters back to their topics, each once: first an intent, then the record and a note that it is done.

A run begins with `settle`: its wire has fenced every earlier run, so what those sent is in the log by now or never will
be. Each intent without a note is looked for in the partition it names, from the end that the partition had before. Only
what is in no log may be sent. The reasons are in docs/adr/0010-replay.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from infra.dlq.corrections import Corrections, Left, Ready, Verdict, judge
from infra.dlq.letters import Origin
from infra.dlq.log import REPLAYS, LetterAt, Notes
from infra.dlq.wire import REPLAY_OF, Headers, Outgoing, Place, Wire
from schemas.codec import encode
from schemas.records import DeadLetterReplay


@dataclass(frozen=True, slots=True)
class Sent:
    """Has gone back and is noted."""

    origin: Origin
    partition: int
    offset: int
    correction: str


Outcome = Verdict | Sent


class Replayer:
    """One run. `notes` are read after the wire was fenced; `settle` comes before `replay`."""

    def __init__(self, wire: Wire, notes: Notes, corrections: Corrections) -> None:
        self._wire = wire
        self._notes = notes
        self._corrections = corrections
        self._unknowable: dict[Origin, Left] = {}

    async def settle(self) -> int:
        """Finds out what became of intents that earlier runs left, and returns how many of them were sent."""
        begun = list(self._notes.begun.values())
        if not begun:
            return 0
        starts: dict[Place, int] = {}
        for note in begun:
            place = (note.topic, note.target_partition)
            starts[place] = min(starts.get(place, note.target_offset), note.target_offset)
        begins = await self._wire.begins(starts)
        self._remember_unknowable(begun, begins)
        starts = {place: start for place, start in starts.items() if place in begins}
        sought = {(Origin.of(note).place, note.target_partition): note for note in begun}
        found = []
        async for replay_of, partition, offset in self._wire.replays_since(starts):
            intent = sought.get((replay_of, partition))
            if intent is not None and offset >= intent.target_offset:
                found.append(replace(intent, state="DONE", target_offset=offset))
        await self._finish(found)
        return len(found)

    async def replay(self, found: Sequence[LetterAt]) -> list[Outcome]:
        """What became of each letter, in their order; those that can be read now were sent."""
        verdicts: list[Outcome] = [
            self._unknowable.get(verdict.origin, verdict) if isinstance(verdict, Ready) else verdict
            for verdict in judge([each.letter for each in found], self._corrections, self._notes.done)
        ]
        ready = [verdict for verdict in verdicts if isinstance(verdict, Ready)]
        if not ready:
            return verdicts
        sent = await self._send(ready, {Origin.of(each.letter): each.headers for each in found})
        return [sent.get(verdict.origin, verdict) for verdict in verdicts]

    async def _send(self, ready: Sequence[Ready], headers: Mapping[Origin, Headers]) -> dict[Origin, Sent]:
        targets = [await self._wire.partition_of(each.origin.topic, each.key) for each in ready]
        ends = await self._wire.ends({(each.origin.topic, target) for each, target in zip(ready, targets, strict=True)})
        intents = [
            _intent(each, target, ends[each.origin.topic, target]) for each, target in zip(ready, targets, strict=True)
        ]
        async with self._wire.transaction():
            await self._write(intents)
        async with self._wire.transaction():
            offsets = await self._wire.put(
                [_outgoing(each, target, headers[each.origin]) for each, target in zip(ready, targets, strict=True)]
            )
            notes = [
                replace(intent, state="DONE", target_offset=offset)
                for intent, offset in zip(intents, offsets, strict=True)
            ]
            await self._write(notes)
        for note in notes:
            self._notes.add(note)
        return {
            Origin.of(note): Sent(Origin.of(note), note.target_partition, note.target_offset, note.correction)
            for note in notes
        }

    async def _finish(self, notes: Sequence[DeadLetterReplay]) -> None:
        """Notes what an earlier run had sent."""
        if not notes:
            return
        async with self._wire.transaction():
            await self._write(notes)
        for note in notes:
            self._unknowable.pop(Origin.of(note), None)
            self._notes.add(note)

    async def _write(self, notes: Sequence[DeadLetterReplay]) -> None:
        keys = [Origin.of(note).key for note in notes]
        records = [
            Outgoing(REPLAYS, await self._wire.partition_of(REPLAYS, key), key, encode(note))
            for key, note in zip(keys, notes, strict=True)
        ]
        await self._wire.put(records)

    def _remember_unknowable(self, begun: Sequence[DeadLetterReplay], begins: Mapping[Place, int]) -> None:
        """Of an intent whose part of the log is deleted nobody can say any more whether it was sent."""
        for note in begun:
            begin = begins.get((note.topic, note.target_partition))
            if begin is None or begin > note.target_offset:
                where = f"offset {note.target_offset} of partition {note.target_partition}"
                left = Left(Origin.of(note), "maybe-sent", f"a replay was begun at {where}, which is deleted")
                self._unknowable[left.origin] = left


def _intent(ready: Ready, partition: int, end: int) -> DeadLetterReplay:
    origin = ready.origin
    return DeadLetterReplay(
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        append_ts=origin.append_ms,
        state="INTENT",
        target_partition=partition,
        target_offset=end,
        correction=ready.correction,
    )


def _outgoing(ready: Ready, partition: int, kept: Headers) -> Outgoing:
    header = (REPLAY_OF, ready.origin.place.encode())
    return Outgoing(ready.origin.topic, partition, ready.key, ready.value, (header, *kept))
