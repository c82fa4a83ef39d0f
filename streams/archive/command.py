"""`fleetbeat archive`: what the command line takes. Light to import: every --help comes by here."""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from schemas.extras import extra
from schemas.kafka.option import BrokersOption, KafkaConfigOption

app = App(name="archive")


def _says(text: str) -> Parameter:
    return Parameter(help=text)


@app.default
def archive(  # noqa: PLR0913 - one argument an option
    *,
    config: Annotated[Path | None, _says("A YAML file of all these; what the command line gives counts more.")] = None,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
    clickhouse: Annotated[
        str | None, _says("URL of a server, instead of the embedded store; without --store also FLEETBEAT_CLICKHOUSE.")
    ] = None,
    cluster: Annotated[
        str | None, _says("With --clickhouse: make the tables on all servers of this cluster, replicated.")
    ] = None,
    store: Annotated[Path | None, _says("Folder of the embedded store; without it .fleetbeat/store.")] = None,
    listen: Annotated[
        str | None, _says("HOST:PORT where the embedded store answers read-only SQL; without it 127.0.0.1:8123.")
    ] = None,
    metrics: Annotated[str | None, _says("HOST:PORT of the archive's own health and metrics.")] = None,
    keep: Annotated[
        tuple[str, ...], _says("TABLE=DAYSd; may be repeated. Without it heartbeats=3d, others longer.")
    ] = (),
    cold_after: Annotated[tuple[str, ...], _says("TABLE=DAYSd, then to the volume `cold` of a server's disks.")] = (),
    sql_users: Annotated[Path | None, _says("Who may ask there; needed where --listen is not loopback.")] = None,
) -> int:
    """Write every raw event to ClickHouse, each exactly once.

    Example: `fleetbeat archive --brokers kafka1:9092 --clickhouse http://user:password@ch1:8123/telemetry`
    """
    with extra("archive"):
        from streams.archive.app import run_archive
        from streams.settings.archive import ARCHIVE_FILE, archive_options
        from streams.settings.reload import begin
    options = {
        "brokers": brokers,
        "kafka_config": kafka_config,
        "clickhouse": clickhouse,
        "cluster": cluster,
        "store": store,
        "listen": listen,
        "metrics": metrics,
        "keep": keep or None,
        "cold_after": cold_after or None,
        "sql_users": sql_users,
    }
    asked = {name: value for name, value in options.items() if value is not None}
    return run_archive(*begin(config, ARCHIVE_FILE, partial(archive_options, asked)))
