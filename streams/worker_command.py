"""`fleetbeat worker`: what the command line takes. Light to import: its --help comes by here."""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from schemas.extras import extra
from schemas.kafka.option import BrokersOption, KafkaConfigOption

app = App(name="worker")


def _says(text: str) -> Parameter:
    return Parameter(help=text)


@app.default
def worker(  # noqa: PLR0913 - one argument an option
    *,
    config: Annotated[Path | None, _says("A YAML file of all these; what the command line gives counts more.")] = None,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
    objectives: Annotated[Path | None, _says("The SLOs: an OpenSLO file. Needed, here or in --config.")] = None,
    state: Annotated[
        Path | None, _says("Folder for what the worker keeps on disk; without it .fleetbeat/worker.")
    ] = None,
    listen: Annotated[
        str | None,
        _says("HOST:PORT of views, health and metrics; port 0 takes a free one; without it 127.0.0.1:8080."),
    ] = None,
    advertise: Annotated[
        str | None, _says("HOST:PORT at which the other workers reach this one; without it where it listens.")
    ] = None,
    nodes_max: Annotated[
        int | None, _says("Nodes known at once; heartbeats of more are refused; without it 2,500,000.")
    ] = None,
    nodes_new_per_minute: Annotated[
        int | None, _says("New nodes taken in a minute; the others come with a later heartbeat; without it 500,000.")
    ] = None,
    series_max: Annotated[
        int | None,
        _says(
            "Combinations of service, endpoint, region and kind kept apart; the events of more are summed as one; "
            "without it 250,000."
        ),
    ] = None,
    stall_after: Annotated[
        float | None,
        _says("Seconds behind without any progress, after which the worker ends to be started again; without it 60."),
    ] = None,
    live: Annotated[
        tuple[str, ...], _says("An objective whose last minute is counted by the millisecond; may be repeated.")
    ] = (),
    history: Annotated[
        str | None,
        _says("ClickHouse, for the past of new SLOs: http://USER:PASSWORD@HOST:PORT; else FLEETBEAT_HISTORY."),
    ] = None,
    signatures: Annotated[
        str | None,
        _says("off; check: count records that are not signed by their node; require: refuse them. Without it off."),
    ] = None,
    signing_keys: Annotated[Path | None, _says("With check and require: a YAML file of master keys.")] = None,
) -> int:
    """Keep the SLO tables and the node table from the stream and answer them over HTTP.

    Example: `fleetbeat worker --brokers kafka1:9092 --objectives slos.yaml --state /var/lib/fleetbeat`
    """
    with extra("streams"):
        from streams.app import run_worker
        from streams.settings.reload import begin
        from streams.settings.worker import WORKER_FILE, worker_options
    options = {
        "brokers": brokers,
        "kafka_config": kafka_config,
        "objectives": objectives,
        "state": state,
        "listen": listen,
        "advertise": advertise,
        "nodes_max": nodes_max,
        "nodes_new_per_minute": nodes_new_per_minute,
        "series_max": series_max,
        "stall_after_s": stall_after,
        "live": live or None,
        "history": history,
        "signatures": signatures,
        "signing_keys": signing_keys,
    }
    asked = {name: value for name, value in options.items() if value is not None}
    return run_worker(*begin(config, WORKER_FILE, partial(worker_options, asked)))
