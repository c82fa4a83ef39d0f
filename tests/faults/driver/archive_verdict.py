"""The oracle's judgement of stores: every record of the ledger and of the log once, and rollups equal to raw rows."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from infra.oracle.judge import Verdict, judge_ids
from infra.oracle.ledger import Ledger
from infra.oracle.sources import Sql
from tests.faults.driver.guests import Sent

TABLES = {"probe-results": "probe_results", "heartbeats": "heartbeats", "request-counts": "request_counts"}
BY_PARTITION = (
    "SELECT kafka_partition, count() AS rows, uniqExact(kafka_offset) AS offsets FROM telemetry.{table} GROUP BY 1"
)
_KEY = "service, endpoint, region, probe, kind"
_ROLLED = {
    "probe_1m": (
        f"minute, {_KEY}",
        "sum(total), sum(good), sum(sum_us), max(max_us)",
        f"toStartOfMinute(toDateTime(ts, 'UTC')) AS minute, {_KEY}",
    ),
    "probe_1h": (
        f"hour, {_KEY}",
        "sum(total), sum(good), sum(sum_us), max(max_us)",
        f"toStartOfHour(toDateTime(ts, 'UTC')) AS hour, {_KEY}",
    ),
}


def judge_store(name: str, sql: Sql, ledger: Ledger, guests: Sequence[Sent], ends: Mapping[str, int]) -> Verdict:
    """Compares a store once; `ends` has how many records each topic holds. Raises UnavailableError."""
    verdict = Verdict()
    judge_ids(verdict, ledger, sql, None)
    for topic, table in TABLES.items():
        verdict.slices_compared += 1  # tables here
        poisoned = sum(each.record is None and each.topic == topic for each in guests)
        (line,) = sql.rows(f"SELECT sum(rows), sum(offsets) FROM ({BY_PARTITION.format(table=table)})")  # noqa: S608
        rows, offsets = map(int, line.split())
        if not rows == offsets == ends[topic] - poisoned:
            expected = ends[topic] - poisoned
            verdict.differ(f"{name}: {topic}", f"{rows} rows of {offsets} offsets; the log has {expected} to store")
    judge_rollups(verdict, name, sql)
    return verdict


def judge_rollups(verdict: Verdict, name: str, sql: Sql) -> None:
    """Every minute and hour that is kept in sums equals what its raw rows say, where there are such tables."""
    for table in rollups(sql):
        key, sums, of_raw = _ROLLED[table]
        kept = f"SELECT {key}, {sums} FROM telemetry.{table} GROUP BY {key}"  # noqa: S608 - our own names
        raw = (
            f"SELECT {of_raw}, count(), countIf(success), sum(latency_us), max(latency_us) "  # noqa: S608 - as above
            f"FROM telemetry.probe_results GROUP BY {key}"
        )
        for one, other, what in ((kept, raw, "not of raw rows"), (raw, kept, "missing or different")):
            differing = sql.number(f"SELECT count() FROM ({one} EXCEPT {other})")  # noqa: S608 - as above
            if differing:
                verdict.differ(f"{name}: {table}", f"{differing} rows of sums are {what}")


def rollups(sql: Sql) -> list[str]:
    """The tables of sums that this store has, of those that are judged."""
    names = ", ".join(f"'{table}'" for table in _ROLLED)
    query = f"SELECT name FROM system.tables WHERE database = 'telemetry' AND name IN ({names})"  # noqa: S608 - as above
    return sorted(line.decode() for line in sql.rows(query))


def log_ends(brokers: str) -> dict[str, int]:
    """How many records each of the topics has ever got."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "oracle", "enable.auto.commit": False})
    try:
        topics = consumer.list_topics(timeout=10).topics
        return {
            topic: sum(
                consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
                for partition in topics[topic].partitions
            )
            for topic in TABLES
        }
    finally:
        consumer.close()
