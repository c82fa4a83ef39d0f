"""One topic's rows into its table: plan, tokened insert, and what to do when nobody knows whether it arrived."""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import polars as pl
from clickhouse_connect.driver.exceptions import ClickHouseError

from streams.archive.blocks import Route, Shaped, arrow_stream
from streams.archive.claims import Claims
from streams.archive.plans import (
    Expiring,
    Found,
    Incomplete,
    Plan,
    PlanStore,
    Verdict,
    judge,
    mentions,
    token,
    touches,
    where,
)
from streams.archive.retention import kept_from_ms
from streams.archive.rollups import mend

# A batch may touch months of slo_windows; the answer must not come before the rows are written.
_INSERT_SETTINGS = {"throw_on_max_partitions_per_insert_block": 0, "async_insert": 0}


# What ClickHouse says of rows, not of itself or of the table: out of bounds, too large, null, against a constraint.
_DATA_CODES = frozenset({69, 117, 131, 321, 349, 395, 407, 469, 691})
# When more rows of one batch are refused, it is the table that is not as it should be.
_MOST_REFUSED = 100


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that ClickHouse refuses, and what it says."""

    partition: int
    offset: int
    said: str


@dataclass(frozen=True, slots=True)
class Settled:
    """What completing a batch came to."""

    inserted: int = 0
    refused: tuple[Refused, ...] = ()


class UnsettledError(RuntimeError):
    """Whether a batch is complete cannot be said yet; ask again later."""


class StoreClient(Protocol):
    """What the archive uses of a clickhouse-connect client; one client belongs to one thread."""

    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """Rows in `result_rows`."""

    def raw_insert(
        self,
        table: str,
        column_names: Sequence[str] | None = None,
        insert_block: bytes | None = None,
        settings: dict[str, Any] | None = None,
        fmt: str | None = None,
    ) -> Any:  # noqa: ANN401
        """Inserts bytes of the format `fmt`."""

    def command(self, cmd: str) -> Any:  # noqa: ANN401
        """Runs a statement; returns its only value."""

    def close(self) -> None:
        """Ends the connection."""


class Ingest:
    """The store's side of one topic. Blocks, belongs to one thread, raises what the client raises."""

    def __init__(self, client: StoreClient, route: Route, claims: Claims | None = None) -> None:
        self._client = client
        self._route = route
        self._claims = claims
        self._plans = PlanStore(client, claims)

    def store(self, shaped: Shaped) -> None:
        """Plans the batch, then inserts it. When this raises, only `settle` may follow."""
        self._plans.write(shaped.plans)
        self._insert(shaped.frame, shaped.plans)
        self._check(shaped.plans)

    def settle(self, shaped: Shaped) -> Settled:
        """Completes a batch of unknown outcome.

        Inserts the rows that the table does not hold, under a new epoch: the old token may have been noted without
        its rows. What ClickHouse refuses for its data is left out, and the plan still counts it: until `accept`, the
        batch is in doubt. May be called again and again. Raises UnsettledError while an earlier insert may still run.
        """
        plans = self._as_written(shaped.plans)
        missing = self._missing(shaped.frame, plans)
        if missing.is_empty():
            self._mend_rollups(plans)
            return Settled()
        again = [plan.again() for plan in plans]
        self._plans.write(again)
        refused = self._insert_most(missing, again)
        self._check(again)
        if not self._route.replacing and (lost := self._missing(shaped.frame, again).height - len(refused)):
            raise UnsettledError(f"{self._route.table}: {lost} of {missing.height} rows are missing after their insert")
        self._mend_rollups(again)
        return Settled(missing.height - len(refused), tuple(refused))

    def accept(self, shaped: Shaped, refused: Sequence[Refused]) -> None:
        """Plans the batch without the rows that were refused, and are kept elsewhere by now."""
        without = Counter(each.partition for each in refused)
        plans = [plan.again() for plan in self._as_written(shaped.plans)]
        self._plans.write([replace(plan, rows=plan.rows - without[plan.partition]) for plan in plans])
        self._check(plans)

    def no_longer_in_doubt(self, plan: Plan) -> None:
        """Plans the same offsets without rows, so that none is looked for again."""
        plans = [replace(written.again(), rows=0) for written in self._as_written([plan])]
        self._plans.write(plans)
        self._check(plans)

    def last_plans(self, partitions: Collection[int]) -> dict[int, Plan]:
        """The last plan of each partition that has one; once it is carried out, `last` + 1 is where to go on.

        Claims the partitions first. Raises UnsettledError while somebody else's insert for them is running.
        """
        if self._claims is not None:
            self._claims.take(self._client, partitions)
            for said in self._running():
                if touches(said, self._route.topic, partitions):
                    raise UnsettledError(f"{self._route.table}: the insert {said[:200]!r} is still running")
        return self._plans.last(self._route.topic, partitions)

    def verify(self, plans: Sequence[Plan]) -> dict[int, Verdict]:
        """What became of each plan that has rows, by partition. Raises UnsettledError.

        A table that keeps one row a key cannot tell: there every plan counts as not carried out. Of a plan whose rows
        may all have expired nothing is said. Where all rows are there, the rollups made of them are mended.
        """
        kept_from = kept_from_ms(self._client, self._route.table)
        kept = [plan for plan in plans if plan.rows and plan.received_to_ms >= kept_from]
        self._refuse_while_running(kept)
        if self._route.replacing:
            return {plan.partition: Incomplete(plan.rows) for plan in kept}
        asked = [plan for plan in kept if plan.received_from_ms >= kept_from]
        return {plan.partition: Expiring(kept_from) for plan in kept} | self._judge(asked)

    def _judge(self, asked: Sequence[Plan]) -> dict[int, Verdict]:
        """The verdicts about plans of which no row can have expired."""
        if not asked:
            return {}
        result = self._client.query(
            "SELECT kafka_partition, count(), uniqExact(kafka_offset) "  # noqa: S608 - numbers and our own names
            f"FROM {self._route.table} WHERE {where(asked)} GROUP BY kafka_partition"
        )
        found = {partition: Found(rows, offsets) for partition, rows, offsets in result.result_rows}
        verdicts = {plan.partition: judge(plan, found.get(plan.partition, Found(0, 0))) for plan in asked}
        self._mend_rollups([plan for plan in asked if not isinstance(verdicts[plan.partition], Incomplete)])
        return verdicts

    def _mend_rollups(self, plans: Sequence[Plan]) -> None:
        if why := mend(self._client, self._route.table, plans):
            raise UnsettledError(why)

    def _insert_most(self, frame: pl.DataFrame, plans: Sequence[Plan]) -> list[Refused]:
        """Halves what is refused until only rows are left out that are refused alone; returns those."""
        refused: list[Refused] = []
        parts = [frame]
        for attempt in itertools.count():
            part = parts.pop()
            try:
                # a token of its own for each attempt
                self._insert(part, plans, f".{attempt}" if attempt else "")
            except ClickHouseError as error:
                if getattr(error, "code", None) not in _DATA_CODES or len(refused) >= _MOST_REFUSED:
                    raise
                if part.height == 1:
                    row = part.row(0, named=True)
                    refused.append(Refused(row["kafka_partition"], row["kafka_offset"], str(error)))
                else:
                    half = part.height // 2
                    parts += [part.tail(-half), part.head(half)]
            if not parts:
                break
        return refused

    def _insert(self, frame: pl.DataFrame, plans: Sequence[Plan], attempt: str = "") -> None:
        if frame.is_empty():
            return
        settings = {"insert_deduplication_token": token(plans) + attempt, **_INSERT_SETTINGS}
        body = arrow_stream(frame)
        if self._claims is not None:
            partitions = [plan.partition for plan in plans]
            self._claims.insert(
                self._client, partitions, self._route.table, frame.columns, body, "ArrowStream", settings
            )
            return
        self._client.raw_insert(
            self._route.table, frame.columns, insert_block=body, settings=settings, fmt="ArrowStream"
        )

    def _as_written(self, plans: Sequence[Plan]) -> list[Plan]:
        """The batch's plans with the epochs last written, which a repair must go beyond."""
        known = self._plans.last(self._route.topic, [plan.partition for plan in plans])
        epochs = {(plan.partition, plan.last): plan.epoch for plan in known.values()}
        return [replace(plan, epoch=epochs.get((plan.partition, plan.last), plan.epoch)) for plan in plans]

    def _missing(self, frame: pl.DataFrame, plans: Sequence[Plan]) -> pl.DataFrame:
        """The rows that the table does not hold; all of them where it cannot tell. Raises UnsettledError."""
        self._refuse_while_running(plans)
        if self._route.replacing or frame.is_empty():
            return frame
        result = self._client.query(
            f"SELECT kafka_partition, kafka_offset FROM {self._route.table} WHERE {where(plans)}"  # noqa: S608
        )
        there = np.array(result.result_rows, np.int64).reshape(-1, 2)
        place = {"kafka_partition": pl.UInt16, "kafka_offset": pl.Int64}
        held = pl.DataFrame(there, schema=dict.fromkeys(place, pl.Int64), orient="row").cast(place)  # type: ignore[arg-type]
        return frame.join(held, on=list(place), how="anti", maintain_order="left")

    def _refuse_while_running(self, plans: Sequence[Plan]) -> None:
        """An insert whose answer was lost may still be at work in the server."""
        if not plans:
            return
        for said in self._running():
            if any(mentions(said, plan) for plan in plans):
                raise UnsettledError(f"{self._route.table}: the insert {said[:200]!r} is still running")

    def _running(self) -> list[str]:
        """The tokens of all inserts that run in the server."""
        result = self._client.query(
            "SELECT Settings['insert_deduplication_token'] FROM system.processes WHERE query_kind = 'Insert'"
        )
        return [said for (said,) in result.result_rows]

    def _check(self, plans: Sequence[Plan]) -> None:
        """Raises ClaimLostError when the inserts for `plans` may have come to nothing."""
        if self._claims is not None:
            self._claims.check(self._client, [plan.partition for plan in plans])
