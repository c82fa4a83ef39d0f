"""Plans: what is about to be inserted, written first, so that a crash leaves a question and never a guess."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from streams.archive.claims import Claims

TABLE = "telemetry.archive_plans"
_EPOCH_BITS = 16
PLANNING = "plan "
"""Begins the token of an insert of plans, by which it is known while it runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows that offsets `first` to `last` (both included) of one Kafka partition make in the topic's table.

    `rows` counts table rows: rejected records and offsets that the log does not hold make none. `received_from_ms`
    and `received_to_ms` are the lowest and highest append time among the records. `topic_id`: which topic had that name
    then; empty where that is not known.
    """

    topic: str
    partition: int
    first: int
    last: int
    rows: int
    received_from_ms: int
    received_to_ms: int
    epoch: int = 0
    topic_id: str = ""

    @property
    def revision(self) -> int:
        """Orders the plans of a partition, whoever writes them and whenever they arrive."""
        # however often a table has refused it, it is not the last plan once there is one for a later offset
        return (self.last + 1 << _EPOCH_BITS) + min(self.epoch, (1 << _EPOCH_BITS) - 1)

    def again(self) -> "Plan":
        """The same offsets under the next epoch, so under a token that was never used."""
        return replace(self, epoch=self.epoch + 1)


def token(plans: Sequence[Plan]) -> str:
    """The deduplication token of one insert with the rows of `plans`, which are all of one topic."""
    return f"{plans[0].topic} {' '.join(f'{_range(plan)}{plan.epoch}' for plan in plans)}"


def mentions(said: str, plan: Plan) -> bool:
    """Whether the insert with the token `said` carries the offsets of `plan`, under any epoch."""
    topic, *ranges = said.split(" ")
    return topic == plan.topic and any(entry.startswith(_range(plan)) for entry in ranges)


def touches(said: str, topic: str, partitions: Collection[int]) -> bool:
    """Whether the insert with the token `said` carries anything of the partitions, rows or plans."""
    of, *ranges = said.removeprefix(PLANNING).split(" ")
    return of == topic and any(int(entry.partition(":")[0]) in partitions for entry in ranges)


def _range(plan: Plan) -> str:
    return f"{plan.partition}:{plan.first}-{plan.last}#"


def where(plans: Sequence[Plan]) -> str:
    """The condition for the plans' rows; append times let ClickHouse skip whole days."""
    span = " AND ".join(
        f"fromUnixTimestamp64Milli({ms}, 'UTC')"
        for ms in (min(plan.received_from_ms for plan in plans), max(plan.received_to_ms for plan in plans))
    )
    ranges = " OR ".join(
        f"(kafka_partition = {plan.partition} AND kafka_offset BETWEEN {plan.first} AND {plan.last})" for plan in plans
    )
    return f"received_at BETWEEN {span} AND ({ranges})"


@dataclass(frozen=True, slots=True)
class Found:
    """What the table holds of a plan's offsets: rows, and different offsets."""

    rows: int
    offsets: int


@dataclass(frozen=True, slots=True)
class Complete:
    """Every planned row is there."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """`missing` of the planned rows are not there."""

    missing: int


@dataclass(frozen=True, slots=True)
class Doubled:
    """`extra` rows are there twice: the protocol was broken, and no insert can mend it."""

    extra: int


@dataclass(frozen=True, slots=True)
class Expiring:
    """Some of the planned rows may have expired, so their number says nothing; none received since `kept_from_ms`."""

    kept_from_ms: int


Verdict = Complete | Incomplete | Doubled | Expiring


def judge(plan: Plan, found: Found) -> Verdict:
    """Whether a plan for a table with one row an offset was carried out."""
    if found.rows > found.offsets:
        return Doubled(found.rows - found.offsets)
    if found.offsets < plan.rows:
        return Incomplete(plan.rows - found.offsets)
    return Complete()


class PlanStore:
    """The table of plans; every method raises what the client raises."""

    def __init__(self, client: Any, claims: Claims | None = None) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
        self._client = client
        self._claims = claims

    def write(self, plans: Sequence[Plan]) -> None:
        """Stores all plans in one insert, which is one part and so all or nothing; repeating it is harmless."""
        rows = [_row(plan) for plan in plans]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if self._claims is None:
            self._client.raw_insert(TABLE, insert_block=lines, fmt="JSONEachRow")
            return
        partitions, settings = (
            [plan.partition for plan in plans],
            {"insert_deduplication_token": PLANNING + token(plans)},
        )
        self._claims.insert(self._client, partitions, TABLE, list(rows[0]), lines, "JSONEachRow", settings)

    def last(self, topic: str, partitions: Collection[int]) -> dict[int, Plan]:
        """The last plan of each of the partitions that has one."""
        span = "toUnixTimestamp64Milli(received_from), toUnixTimestamp64Milli(received_to)"
        fields = f"first_offset, last_offset, rows, {span}, epoch, topic_id"
        result = self._client.query(
            f"SELECT partition, argMax(({fields}), revision) FROM {TABLE} "  # noqa: S608 - our own names
            "WHERE topic = {topic:String} GROUP BY partition",
            parameters={"topic": topic},
        )
        return {
            partition: Plan(topic, partition, *fields)
            for partition, fields in result.result_rows
            if partition in partitions
        }


def _row(plan: Plan) -> dict[str, str | int]:
    return {
        "topic": plan.topic,
        "partition": plan.partition,
        "topic_id": plan.topic_id,
        "first_offset": plan.first,
        "last_offset": plan.last,
        "rows": plan.rows,
        "epoch": plan.epoch,
        "received_from": _timestamp(plan.received_from_ms),
        "received_to": _timestamp(plan.received_to_ms),
        "revision": plan.revision,
    }


def _timestamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
