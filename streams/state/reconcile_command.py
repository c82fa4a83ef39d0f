"""`fleetbeat reconcile`: what the command line takes. Light to import: every --help comes by here."""

from typing import Annotated

from cyclopts import Parameter

from schemas.extras import extra
from schemas.kafka.option import BrokersOption, KafkaConfigOption, reach


def _says(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


def _time(text: str, name: str | None = None) -> Parameter:
    return Parameter(name=name, help=text, allow_leading_hyphen=True)  # an age begins with one


Clickhouse = Annotated[
    str | None, _says("http://USER:PASSWORD@HOST:PORT; without it FLEETBEAT_SQL, or http://127.0.0.1:8123.")
]


def reconcile(  # noqa: PLR0913 - one argument an option
    *,
    from_: Annotated[
        str, _time("Hours from then on: -24h, or a time such as 2026-03-02T10:00:00Z.", name="--from")
    ] = "-24h",
    to: Annotated[str, _time("Hours up to then.")] = "now",
    minutes: Annotated[
        bool, _says("Minutes as well, of objectives and of all other series: the tables keep 6.5 hours of them.")
    ] = False,
    clickhouse: Clickhouse = None,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
    wait: Annotated[float, Parameter(help="Seconds to wait for an archive that is behind.")] = 60.0,
    json: Annotated[bool, _says("One JSON document instead of lines.")] = False,
) -> int:
    """Compares; what --help says about it stands with the names of the commands."""
    with extra("streams,archive"):
        from streams.state.reconcile_run import ReconcileOptions, run_reconcile  # noqa: PLC0415 - only when it runs
    where = reach(brokers, kafka_config)
    return run_reconcile(ReconcileOptions(from_, to, minutes, clickhouse, where, wait, json))
