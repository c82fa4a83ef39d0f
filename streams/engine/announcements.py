"""The topic `objectives`: its records ⇄ announcements, and a reader that knows how far it has read."""

import asyncio
import uuid
from collections.abc import Collection, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord, TopicPartition

from schemas.buckets import is_bound
from schemas.codec import DecodeError, decode, encode
from schemas.kafka import Brokers, client_settings
from schemas.records import ObjectiveRule, ObjectiveSet, ObjectiveVersion
from streams.core.burn import BurnRule
from streams.core.calendars import START_FORMAT, UNITS, Calendar
from streams.core.objectives import Objective, Selector, TimeSlices
from streams.core.slices import is_slice
from streams.core.sources import COUNTS, SOURCES
from streams.core.versions import Announcement
from streams.engine.transport import require_append_time
from streams.fetches import let_fetches_end

TOPIC = "objectives"
PARTITION = TopicPartition(TOPIC, 0)  # one log, so that announcements have one order
# Leaves room under the broker's default of 1 MiB a record.
MAX_SET_BYTES = 900_000
_POLL_MS = 500
_REQUEST_MS = 10_000
# Far more than any window may be: what is longer makes arithmetic fail that every worker does all the time.
_LONGEST_S = 10 * 366 * 86_400
_YEARS = range(1970, 2101)

Records = list[ConsumerRecord[bytes, bytes]]


class SetTooLargeError(ValueError):
    """A set of objectives does not fit into one record."""

    def __init__(self, objectives: int, size: int) -> None:
        super().__init__(f"{objectives} objectives take {size} bytes; expected at most {MAX_SET_BYTES}")


class SetUnreadableError(ValueError):
    """A record of the topic is no set of objectives."""


class NewerWriterError(RuntimeError):
    """A set was announced in a form that this program does not know: only a newer one can say what it means."""


class LogShrunkError(RuntimeError):
    """The topic has lost what was read of it."""


def write_set(objectives: Collection[Objective], host: str, start_ms: int = 0) -> bytes:
    """The framed record. Raises SetTooLargeError."""
    value = encode(
        ObjectiveSet(
            start_ms,
            host,
            tuple(_version(objective) for objective in objectives),
            tuple(ObjectiveRule(o.id, **asdict(rule)) for o in objectives for rule in o.rules),
        )
    )
    if len(value) > MAX_SET_BYTES:
        raise SetTooLargeError(len(objectives), len(value))
    return value


def read_set(record: ConsumerRecord[bytes, bytes]) -> Announcement:
    """What a record with a value says. Raises SetUnreadableError and NewerWriterError."""
    try:
        said = decode(record.value)
    except DecodeError as error:
        if error.reason == "unknown-schema":
            message = f"{TOPIC}: {error.detail}; expected a fleetbeat as new as the one that announced it"
            raise NewerWriterError(message) from error
        raise SetUnreadableError(str(error)) from error
    if not isinstance(said, ObjectiveSet):
        raise SetUnreadableError(f"a {type(said).__name__}; expected an ObjectiveSet")
    objectives = tuple(_objective(version, said.rules) for version in said.objectives)
    if problem := _problem(objectives, said):
        raise SetUnreadableError(problem)
    return Announcement(record.offset, record.timestamp, said.start, objectives, said.announced_by)


def _version(objective: Objective) -> ObjectiveVersion:
    where, slices, calendar = objective.selector, objective.time_slices, objective.calendar
    return ObjectiveVersion(
        slo=objective.id,
        version=objective.version,
        service=objective.service,
        display_name=objective.display_name,
        where_service=where.service,
        where_endpoint=where.endpoint,
        where_region=where.region,
        where_kind=where.kind,
        latency_us_le=objective.latency_us_le,
        target=objective.target,
        window_s=objective.window_s,
        source=objective.source,
        slice_s=slices.length_s if slices else None,
        slice_target=slices.target if slices else None,
        calendar_start=calendar.start if calendar else None,
        calendar_zone=calendar.zone if calendar else None,
        calendar_count=calendar.count if calendar else None,
        calendar_unit=calendar.unit if calendar else None,
    )


def _objective(version: ObjectiveVersion, rules: Iterable[ObjectiveRule]) -> Objective:
    return Objective(
        id=version.slo,
        service=version.service,
        display_name=version.display_name,
        selector=Selector(version.where_service, version.where_endpoint, version.where_region, version.where_kind),
        latency_us_le=version.latency_us_le,
        target=version.target,
        window_s=version.window_s,
        rules=tuple(
            BurnRule(rule.name, rule.severity, rule.factor, rule.long_s, rule.short_s)
            for rule in rules
            if rule.slo == version.slo
        ),
        source=version.source,
        time_slices=_slices(version),
        calendar=_calendar(version),
    )


def _slices(version: ObjectiveVersion) -> TimeSlices | None:
    if version.slice_s is None or version.slice_target is None:
        return None
    return TimeSlices(version.slice_s, version.slice_target)


def _calendar(version: ObjectiveVersion) -> Calendar | None:
    start, zone, count, unit = (
        version.calendar_start,
        version.calendar_zone,
        version.calendar_count,
        version.calendar_unit,
    )
    if start is None or zone is None or count is None or unit is None:
        return None
    return Calendar(start, zone, count, unit)


def _problem(objectives: tuple[Objective, ...], record: ObjectiveSet) -> str:
    """What no file can say, so that no worker has written it; empty when all is well."""
    if len({objective.id for objective in objectives}) < len(objectives):
        return "an id comes twice; expected each once"
    for objective, version in zip(objectives, record.objectives, strict=True):
        if not objective.id or not 0 < objective.target < 1 or not _is_length(objective.window_s):
            asked = f"target {objective.target}, window_s {objective.window_s}"
            return f"objective {objective.id!r}: {asked}; expected a target in (0, 1) and a window from 1 s to 10 years"
        if problem := _not_counted(objective):
            return f"objective {objective.id!r}: {problem}"
        if objective.version != version.version:
            return f"objective {objective.id!r}: version {version.version!r}; expected {objective.version!r}"
    return ""


def _not_counted(objective: Objective) -> str:
    """Why windows of it cannot be computed; empty when they can. A time zone may be unknown on this host only."""
    slices, calendar = objective.time_slices, objective.calendar
    for rule in objective.rules:
        if not (_is_length(rule.long_s) and _is_length(rule.short_s)):
            return f"rule {rule.name!r} over {rule.long_s} s and {rule.short_s} s; expected 1 s to 10 years"
    if objective.source not in SOURCES:
        return f"source {objective.source!r}; expected one of {', '.join(SOURCES)}"
    if objective.source == COUNTS and not is_bound(objective.latency_us_le):
        return f"latency_us_le {objective.latency_us_le}; expected a bucket's bound"
    if slices and not (is_slice(slices.length_s) and 0 < slices.target <= 1):
        return f"slices of {slices.length_s} s, target {slices.target}; expected a part of 6 h, and (0, 1]"
    return "" if calendar is None else _not_a_period(calendar)


def _not_a_period(calendar: Calendar) -> str:
    try:
        first = datetime.strptime(calendar.start, START_FORMAT)  # noqa: DTZ007 - a wall's
    except ValueError as cause:
        return f"calendar from {calendar.start!r}: {cause}"
    if first.year not in _YEARS:
        return f"calendar from {calendar.start!r}; expected a year from {_YEARS[0]} to {_YEARS[-1]}"
    known = calendar.unit in UNITS and _is_length(calendar.nominal_s)
    return "" if known else f"a period of {calendar.count}{calendar.unit}; expected some d, w or M, up to 10 years"


def _is_length(seconds: int) -> bool:
    return 1 <= seconds <= _LONGEST_S


class AnnouncementLog:
    """Partition 0 of the topic, read from its beginning on by a consumer of its own, outside of any group."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._consumer = AIOKafkaConsumer(
            **client_settings(brokers),
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=_REQUEST_MS,
        )
        self._read: Records = []

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        let_fetches_end(self._consumer)
        try:
            self._consumer.assign([PARTITION])
            begins = await self._consumer.beginning_offsets([PARTITION])
            self._consumer.seek(PARTITION, begins[PARTITION])
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read_to_end(self) -> Records:
        """What was appended since the last call, at least all that was there when this one began.

        Raises KafkaError, and LogShrunkError when the topic was created anew.
        """
        end: int = (await self._consumer.end_offsets([PARTITION]))[PARTITION]
        at = await self._consumer.position(PARTITION)
        if end < at:
            raise LogShrunkError(f"{TOPIC} ends at offset {end}, read was up to {at}; expected a log that only grows")
        while await self._consumer.position(PARTITION) < end:
            for records in (await self._consumer.getmany(PARTITION, timeout_ms=_POLL_MS)).values():
                require_append_time(records)
                self._read += records  # kept for the next call when this one is given up
        found, self._read = self._read, []
        return found

    async def append(self, value: bytes) -> int:
        """Announce a set; the offset of its record, once all replicas have it. Raises KafkaError."""
        return await self._send([(uuid.uuid4().hex.encode(), value)])

    async def forget(self, keys: Collection[bytes]) -> None:
        """Tombstones. Raises KafkaError."""
        await self._send([(key, None) for key in keys])

    async def _send(self, records: Collection[tuple[bytes, bytes | None]]) -> int:
        # A few times in the life of a worker: nothing that must be kept running.
        producer = AIOKafkaProducer(
            **client_settings(self._brokers),
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            request_timeout_ms=_REQUEST_MS,
        )
        try:
            await producer.start()  # without a right to write, or in time, it fails with its connections open
            acks = [await producer.send(TOPIC, value, key, partition=0) for key, value in records]
            offsets: list[int] = [ack.offset for ack in await asyncio.gather(*acks)]
            return max(offsets)
        finally:
            await producer.stop()
