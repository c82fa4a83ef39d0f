"""The file of `fleetbeat archive --config`, and the options that it and the command line come to together."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, create_model, model_validator

from schemas.kafka.settings import FilePath
from schemas.listen import ListenError, listen_address
from streams.archive.cluster_ddl import check_name
from streams.archive.ddl import DATABASE
from streams.archive.options import ArchiveOptions, OptionsError
from streams.archive.retention import expiries
from streams.settings.fields import (
    KafkaFile,
    Listen,
    LogLevel,
    Strict,
    check_login,
    check_url,
    given,
    says,
    with_password,
)
from streams.settings.load import Kind, Place

CLICKHOUSE_VARIABLE = "FLEETBEAT_CLICKHOUSE"  # so that no password stands on a command line
_STORE = ".fleetbeat/store"
_USUAL = ArchiveOptions("")
_LANES, _SQL = _USUAL.limits, _USUAL.sql
_DAYS = re.compile(r"[1-9]\d{0,3}d")

Wait = Annotated[float, Field(ge=0.01, le=3_600, allow_inf_nan=False)]
Records = Annotated[int, Field(ge=1, le=100_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1 << 50)]
NoBound = Annotated[int, Field(ge=0, le=1 << 50)]


def _check_days(text: str) -> str:
    if not _DAYS.fullmatch(text):
        raise ValueError("expected days, such as 30d")
    return text


def _check_cluster(text: str) -> str:
    try:
        check_name(text)
    except ValueError:
        raise ValueError("expected a name as in system.clusters") from None
    return text


def _check_any_listen(text: str) -> str:
    listen_address(text, open_to_all=True)  # whether everybody may come depends on sql_users
    return text


def _check_database(text: str) -> str:
    check_url(text)
    if (path := text.partition("://")[2].partition("/")[2].strip("/")) not in {"", DATABASE}:
        raise ValueError(f"database {path!r}; expected none, or {DATABASE}")
    return text


Days = Annotated[str, AfterValidator(_check_days), Field(json_schema_extra={"pattern": f"^{_DAYS.pattern}$"})]


def _days_file(name: str, text: str, usual: Mapping[str, str | None]) -> type[Strict]:
    """A mapping of the tables that expire to days."""
    columns: dict[str, Any] = {table: (Days if days else Days | None, days) for table, days in usual.items()}
    return create_model(name, __base__=Strict, __doc__=text, **columns)


_KEPT = {table: f"{expiry.days}d" for table, expiry in sorted(expiries().items())}
KeepFile = _days_file("KeepFile", "After how many days rows are deleted, by table.", _KEPT)
ColdFile = _days_file(
    "ColdFile",
    "After how many days rows go to the volume `cold` of a server's disks, by table; fewer than they are kept.",
    dict.fromkeys(_KEPT),
)


class ClickHouseFile(Strict):
    """A server, instead of the embedded store."""

    url: Annotated[
        Annotated[str, AfterValidator(_check_database)] | None,
        says(f"http://USER@HOST:PORT; without it ${CLICKHOUSE_VARIABLE}, which may hold a password too."),
    ] = None
    password_file: Annotated[FilePath | None, says("With the user's password, which only its owner can read.")] = None
    cluster: Annotated[
        Annotated[str, AfterValidator(_check_cluster)] | None,
        says("Make the tables on all servers of this cluster, replicated."),
    ] = None

    @model_validator(mode="after")
    def _has_whose_password_it_is(self) -> Self:
        check_login(self.url, self.password_file)
        return self


class SqlFile(Strict):
    """What queries of the embedded store may take: all together, and each user who has no limits of their own."""

    running: Annotated[int, Field(ge=1, le=64), says("Queries at once.")] = _SQL.running
    waiting: Annotated[int, Field(ge=0, le=10_000), says("More that wait for their turn.")] = _SQL.waiting
    wait_s: Annotated[Wait, says("Then they are refused.")] = _SQL.wait_s
    execution_s: Annotated[int, Field(ge=1, le=86_400), says("Longer ones are ended.")] = _SQL.execution_s
    threads: Annotated[int, Field(ge=1, le=256), says("Of one query.")] = _SQL.threads
    result_bytes: Annotated[Bytes, says("Of a result that is built before it is sent.")] = _SQL.result_bytes
    stream_bytes: Annotated[Bytes, says("Of a result that is sent as it comes.")] = _SQL.stream_bytes
    read_rows: Annotated[NoBound, says("Rows that a query reads; 0: as many as there are.")] = _SQL.read_rows
    read_bytes: Annotated[NoBound, says("Bytes that a query reads; 0: as many as there are.")] = _SQL.read_bytes
    memory_bytes: Annotated[NoBound, says("Of a query; 0: its share of half of the store's memory.")] = (
        _SQL.memory_bytes
    )
    sessions: Annotated[int, Field(ge=1, le=100_000), says("Kept at once for each user.")] = _SQL.sessions
    slow_s: Annotated[Wait, says("Queries that take longer are written down.")] = _SQL.slow_s


class BatchesFile(Strict):
    """When what was read is stored, by topic, and how much may wait for it."""

    enough_records: Annotated[Records, says("So many are stored at once.")] = _LANES.enough_records
    wait_s: Annotated[Wait, says("Fewer are stored after so long.")] = _LANES.wait_s
    busy_records: Annotated[Records, says("With so many by then the topic is busy.")] = _LANES.busy_records
    busy_wait_s: Annotated[Wait, says("Of a busy topic, instead of `wait_s`.")] = _LANES.busy_wait_s
    batch_records: Annotated[Records, says("A batch has about so many at most.")] = _LANES.batch_records
    most_records: Annotated[Records, says("No more is read while so many wait.")] = _LANES.records
    most_bytes: Annotated[Bytes, says("No more is read while so many bytes wait.")] = _LANES.bytes

    @model_validator(mode="after")
    def _has_room_for_what_is_enough(self) -> Self:
        if self.enough_records > self.most_records:
            raise ValueError(
                f"enough_records {self.enough_records}; expected at most most_records, {self.most_records}"
            )
        return self


class ArchiveFile(Strict):
    """Where `fleetbeat archive` writes what is on Kafka. Whatever the command line gives counts instead."""

    kafka: KafkaFile = KafkaFile()
    clickhouse: ClickHouseFile | None = None
    store: Annotated[FilePath | None, says(f"Folder of the embedded store; without a server {_STORE}.")] = None
    listen: Annotated[
        Annotated[str, AfterValidator(_check_any_listen)],
        says("HOST:PORT where the embedded store answers read-only SQL; beyond loopback only with `sql_users`."),
    ] = _USUAL.listen
    metrics: Annotated[
        Listen | None, says("HOST:PORT of the archive's own health, metrics and POST /-/reload, on loopback.")
    ] = None
    keep: KeepFile = KeepFile()  # type: ignore[valid-type] # made of the tables that there are
    cold_after: ColdFile = ColdFile()  # type: ignore[valid-type] # as above
    sql_users: Annotated[FilePath | None, says("Who may ask in SQL; without it everybody on this machine.")] = None
    sql: SqlFile = SqlFile()
    batches: BatchesFile = BatchesFile()
    ready_lag_records: Annotated[Records, says("Not ready while more than so many wait in Kafka.")] = _USUAL.ready_lag
    log_level: Annotated[LogLevel, says("Of what is logged, the least important.")] = "info"


def _contradictions(keys: Mapping[str, Any], bad: Collection[str]) -> Iterator[tuple[Place, str]]:
    store, users, listen = (keys.get(key) for key in ("store", "sql_users", "listen"))
    server = keys.get("clickhouse") is not None or "clickhouse" in bad
    if server and store is not None:
        yield ("store",), f"value {store!r}: beside clickhouse; expected one of them"
    if server and users is not None:
        yield ("sql_users",), f"value {users!r}: beside clickhouse; that server has users of its own"
    if listen is not None and users is None and "sql_users" not in bad and (why := _not_for_everybody(listen)):
        yield ("listen",), f"value {listen!r}: {why}, or sql_users"
    if "keep" not in bad:
        kept = _KEPT | (keys.get("keep") or {})
        for table, cold in (keys.get("cold_after") or {}).items():
            if cold is not None and int(cold[:-1]) >= int(kept[table][:-1]):
                why = f"rows are deleted after {kept[table]}; expected fewer days than that"
                yield ("cold_after", table), f"value {cold!r}: {why}"


def _not_for_everybody(listen: str) -> str | None:
    try:
        listen_address(listen)
    except ListenError as cause:
        return str(cause)
    return None


ARCHIVE_FILE = Kind(ArchiveFile, _contradictions)

# By the names of options, the keys of the file.
ARCHIVE_KEYS = {
    "brokers": "kafka",
    "clickhouse": "clickhouse",
    "cluster": "clickhouse.cluster",
    "store": "store",
    "listen": "listen",
    "metrics": "metrics",
    "keep": "keep",
    "cold_after": "cold_after",
    "sql_users": "sql_users",
    "sql": "sql",
    "limits": "batches",
    "ready_lag": "ready_lag_records",
    "log_level": "log_level",
}


def archive_options(asked: Mapping[str, Any], file: ArchiveFile) -> ArchiveOptions:
    """What the command line asked for, then the environment, then the file, then the usual.

    `asked` has the names of ArchiveOptions, `brokers` and `kafka_config` as they were typed. Of `keep` and `cold_after`
    each table counts by itself. Raises OptionsError, and what opening files raises that the settings name:
    DocumentError, SecretFileError, CertificateError.
    """
    typed = dict(asked)
    kafka = file.kafka.reach(typed.pop("brokers", None), typed.pop("kafka_config", None))
    values = given(file, {"listen": "listen", "metrics": "metrics", "log_level": "log_level"})
    values |= given(file, {"ready_lag_records": "ready_lag"})
    values |= {name: (*_days(getattr(file, name)), *typed.pop(name, ())) for name in ("keep", "cold_after")}
    values |= {"sql": replace(_SQL, **given(file.sql, {key: key for key in SqlFile.model_fields}))}
    values |= {"limits": replace(_LANES, **given(file.batches, _BATCHES))}
    return ArchiveOptions(**{**values, **_place(typed, file), **typed, "brokers": kafka})


_BATCHES = {key: key.removeprefix("most_") for key in BatchesFile.model_fields}


def _place(typed: Mapping[str, Any], file: ArchiveFile) -> dict[str, Any]:
    """Where rows go: the first that names a store or a server counts, with what the file says of that one."""
    server, users = file.clickhouse, None if file.sql_users is None else Path(file.sql_users)
    cluster = None if server is None else server.cluster
    from_environment = os.environ.get(CLICKHOUSE_VARIABLE)
    if "store" in typed:
        return {"sql_users": users}
    if "clickhouse" in typed:
        return {"cluster": cluster}
    if from_environment:
        return {"clickhouse": from_environment, "cluster": cluster}
    if server is None:
        return {"store": Path(file.store or _STORE), "sql_users": users}
    if server.url is None:
        raise OptionsError(
            f"clickhouse: no url; expected one below that key, in --clickhouse, or in ${CLICKHOUSE_VARIABLE}"
        )
    return {"clickhouse": with_password(server.url, server.password_file, _PASSWORD_FILE), "cluster": cluster}


_PASSWORD_FILE = "clickhouse.password_file"  # noqa: S105 - the name of a key


def _days(section: BaseModel) -> list[str]:
    """As the command line has it."""
    return [f"{table}={days}" for table, days in section.model_dump(exclude_unset=True).items() if days is not None]
