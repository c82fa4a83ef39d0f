"""`fleetbeat state show|reset|rebuild`: what the command line takes. Light to import: every --help comes by here."""

from typing import Annotated

from cyclopts import App, Parameter

from schemas.extras import extra
from schemas.kafka.option import BrokersOption, KafkaConfigOption, reach

app = App(name="state", help="Look at the state that workers keep in Kafka, and begin it anew.")


def _says(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


def _flag(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


Families = Annotated[tuple[str, ...], _says("slo (objectives and series) or nodes; without it both.")]
Partitions = Annotated[tuple[int, ...], _says("Only this partition; may be given more than once.")]
Yes = Annotated[bool, _flag("Do not ask.")]


@app.command
def show(
    *,
    family: Families = (),
    partition: Partitions = (),
    json: Annotated[bool, _flag("One JSON document instead of a table.")] = False,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
) -> int:
    """Show the state of every partition: pages, offsets, lag, frontiers, owners, topic ids, and what cannot be read.

    Reads Kafka only; workers may run. Exit 0 when every page can be read, 1 when not.

    Example: `fleetbeat state show --family slo --json`
    """
    with extra("streams"):
        from streams.state.run import run_show
    return run_show(reach(brokers, kafka_config), family, partition, as_lines=not json)


@app.command
def reset(
    *,
    family: Families = (),
    partition: Partitions = (),
    yes: Yes = False,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
) -> int:
    """Delete pages and commits, and have counted again what the topics of their input hold.

    Objectives and series come back as far as slo-partials reach (24 hours), nodes as far as heartbeats do. Says what is
    lost and asks before. No worker may run.

    Example: `fleetbeat state reset --family nodes --partition 3`
    """
    with extra("streams"):
        from streams.state.run import run_reset
    return run_reset(reach(brokers, kafka_config), family, partition, yes=yes)


@app.command
def rebuild(  # noqa: PLR0913 - one argument an option
    *,
    family: Families = (),
    clickhouse: Annotated[str | None, _says("From the raw events there, at http://USER:PASSWORD@HOST:PORT.")] = None,
    partition: Partitions = (),
    from_: Annotated[
        str | None,
        Parameter(
            name="--from", help="Only events since then: -10d, or a time of ISO 8601.", allow_leading_hyphen=True
        ),
    ] = None,
    force: Annotated[bool, _flag("Make good pages anew as well.")] = False,
    series_max: Annotated[int | None, _says("As the workers have it; without it 250000.")] = None,
    yes: Yes = False,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
) -> int:
    """Make lost tables of objectives and series anew from ClickHouse, or all of them from what Kafka keeps.

    With --clickhouse: pages of the partitions that lost theirs are summed up from raw events, as far back as these are
    kept; good pages stay, and workers go on where the tables end. Needs an archive that is up to date.

    Without: pages and commits are deleted, and all is counted again from probe-results, request-counts and heartbeats,
    as far as these topics are kept. It is also the way to go on after the number of partitions was changed. Either says
    from which time on the tables will be exact, and asks before. No worker may run.

    Example: `fleetbeat state rebuild --clickhouse http://127.0.0.1:8123 --yes`
    """
    with extra("streams"):
        from streams.state.run import refuse_without_rows, run_rebuild
    if clickhouse is None:
        refuse_without_rows(partition=partition, from_=from_, force=force, series_max=series_max)
        return run_rebuild(reach(brokers, kafka_config), family, yes=yes)
    with extra("streams,archive"):
        from streams.options import USUAL_SERIES
        from streams.state.refill_run import RefillOptions, run_refill
    where, most = reach(brokers, kafka_config), USUAL_SERIES if series_max is None else series_max
    return run_refill(RefillOptions(where, clickhouse, family, partition, from_, force, yes, most))
