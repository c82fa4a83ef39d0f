"""The commands of `fleetbeat`: each imports its own room only when it runs."""

import runpy
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

if TYPE_CHECKING:
    from schemas.checking import FileKind
    from schemas.kafka import Brokers as KafkaPlace

FAILED = 1


class CannotRunError(ValueError):
    """The command line cannot be understood, or the command cannot start in the way fleetbeat is installed here."""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"fleetbeat {version('fleetbeat')}"
    except PackageNotFoundError:
        return "fleetbeat, not installed"


app = App(
    name="fleetbeat",
    help="Live service level objectives for fleets: Kafka in, HTTP views and SQL out.",
    help_epilogue="Start with `fleetbeat up`. `fleetbeat COMMAND --help` shows an example of each.",
    help_format="markdown",
    version=_version,
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
)
# By name, so that its options do not stand here and nothing of infra is imported for the other commands.
app.command(
    "infra.topics_app:app",
    name="topics",
    help="Create Kafka's topics and who may use them as the catalog describes them, or compare them with it.",
)
app.command("infra.dlq.command:app", name="dlq", help="Look at dead letters, and send them back.")
app.command("streams.state.command:app", name="state", help="Look at what workers keep in Kafka, and begin it anew.")
app.command(
    "streams.worker_command:app",
    name="worker",
    help="Keep the SLO tables and the node table from the stream and answer them over HTTP.\n\n"
    "Example: `fleetbeat worker --brokers kafka1:9092 --objectives slos.yaml --state /var/lib/fleetbeat`",
)
app.command(
    "streams.archive.command:app",
    name="archive",
    help="Write every raw event to ClickHouse, each exactly once.\n\n"
    "Example: `fleetbeat archive --brokers kafka1:9092 --clickhouse http://user:password@ch1:8123/telemetry`",
)
app.command(
    "infra.enroll.command:enroll",
    name="enroll",
    help="Make the keys with which nodes sign their records.\n\n"
    "Example: `fleetbeat enroll web-1 web-2 --master-file /etc/fleetbeat/master-1 --out keys/`",
)
app.command("streams.store.command:app", name="store", help="Look after the archive's tables.")
app.command(
    "streams.sql.command:app",
    name="sql",
    help="Ask the archive in SQL: a prompt, one statement, or a query of the library.\n\n"
    "Exit 1 when ClickHouse says an error, 2 when it cannot be asked like that, 3 when nothing answers.\n\n"
    "Example: `fleetbeat sql --name worst_series --param service=checkout --param since=-30m`",
)
app.command(
    "streams.state.reconcile_command:reconcile",
    name="reconcile",
    help="Compare the SLO tables with the raw events in ClickHouse, hour by hour, and name every difference.\n\n"
    "Exit 0 when all are equal, 1 when something differs or state is lost, 2 when they could not be compared.\n\n"
    "Example: `fleetbeat reconcile --from -24h --clickhouse http://127.0.0.1:8123`",
)


def _says(text: str) -> Parameter:
    return Parameter(help=text)


def _flag(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


Brokers = Annotated[str | None, _says("Kafka's addresses, HOST:PORT, separated by commas; else 127.0.0.1:19092.")]
KafkaConfig = Annotated[
    Path | None, Parameter(help="A YAML file with TLS and the user for Kafka.", env_var="FLEETBEAT_KAFKA_CONFIG")
]


@app.command
def up(  # noqa: PLR0913 - one argument an option
    *,
    check: Annotated[
        bool, _flag("Compare views and SQL with what was sent: one JSON line, 0 only if all agree.")
    ] = False,
    nodes: Annotated[int, _says("Size of the simulated fleet.")] = 1_000,
    rate: Annotated[
        int | None, _says("Probe results per second of the whole fleet; without it 3 a node, at most 30,000.")
    ] = None,
    duration: Annotated[float | None, _says("Seconds until the fleet stops sending.")] = None,
    seed: Annotated[int | None, _says("Draw the same fleet again.")] = None,
    objectives: Annotated[Path | None, _says("Your SLOs instead of those of the simulated fleet.")] = None,
    state: Annotated[
        Path | None, _says("Folder for data and logs; without it .fleetbeat, and an own one with --check.")
    ] = None,
    brokers: Annotated[str | None, _says("HOST:PORT of a Kafka that already runs, instead of starting one.")] = None,
    kafka_config: Annotated[
        Path | None, Parameter(help="With --brokers: TLS and the user, a YAML file.", env_var="FLEETBEAT_KAFKA_CONFIG")
    ] = None,
    kafka_port: Annotated[int | None, _says("Without it 19092, or a free one when that is taken.")] = None,
    worker_port: Annotated[int | None, _says("Of the views; without it 8080, or a free one.")] = None,
    sql_port: Annotated[int | None, _says("Of ClickHouse's HTTP protocol; without it 8123, or a free one.")] = None,
) -> int:
    """Run everything on this machine: Kafka, worker, archive, its agent and a simulated fleet. Ctrl-C ends all of it.

    Example: `fleetbeat up --nodes 5000 --objectives slos.yaml`
    """
    with _extra("all"):
        from infra.local import UpOptions, run_up
    return run_up(
        UpOptions(
            check=check,
            nodes=nodes,
            rate=rate,
            duration_s=duration,
            seed=seed,
            objectives=objectives,
            state=state,
            brokers=brokers,
            kafka_config=kafka_config,
            kafka_port=kafka_port,
            worker_port=worker_port,
            sql_port=sql_port,
        )
    )


@app.command
def agent(
    *,
    config: Annotated[Path, _says("The node, where its records go, and its probes: a YAML file.")],
    brokers: Annotated[str | None, _says("Kafka's addresses, instead of those in the file.")] = None,
    once: Annotated[bool, _flag("Run every probe once, send what was found, and end.")] = False,
) -> int:
    """Report for this host: heartbeats, and what its probes find. SIGTERM or Ctrl-C says goodbye and ends it.

    Example: `fleetbeat agent --config agent.yaml --brokers kafka1:9092`
    """
    with _extra("agent"):
        from agents.app import AgentOptions, run_agent
    return run_agent(AgentOptions(config=config, brokers=brokers, once=once))


@app.command
def probe(
    name: Annotated[str, _says("The probe, as the file calls it.")],
    /,
    *,
    config: Annotated[Path, _says("The agent's YAML file.")],
    target: Annotated[str | None, _says("Which one, of a probe with targets: as discovery would name it.")] = None,
    debug: Annotated[bool, _flag("Show what happened on the way as well.")] = False,
) -> int:
    """Run one probe of an agent once and show its phases; exit 0 when it is up, 1 when not.

    Example: `fleetbeat probe checkout-home --config agent.yaml --debug`
    """
    with _extra("agent"):
        from agents.probe_command import ProbeOptions, run_probe_command
    return run_probe_command(ProbeOptions(name=name, config=config, debug=debug, target=target))


@app.command
def simulate(  # noqa: PLR0913 - one argument an option
    *,
    brokers: Brokers = None,
    kafka_config: KafkaConfig = None,
    nodes: Annotated[int, _says("Size of the fleet.")] = 1_000,
    rate: Annotated[float | None, _says("Probe results per second of the whole fleet; without it one a node.")] = None,
    requests: Annotated[
        float | None, _says("Requests per second that services count; without it the script's.")
    ] = None,
    unpaced: Annotated[bool, _flag("Send as fast as Kafka takes it; needs --duration or --events.")] = False,
    duration: Annotated[float | None, _says("Seconds of event time; without it until Ctrl-C.")] = None,
    events: Annotated[int | None, _says("End after so many events.")] = None,
    interval: Annotated[float, _says("Seconds between two heartbeats of a node.")] = 10.0,
    services: Annotated[int | None, _says("How many services are probed, when the script names none.")] = None,
    endpoints: Annotated[int | None, _says("How many endpoints each of them has.")] = None,
    regions: Annotated[int | None, _says("How many regions nodes stand in, when the script names none.")] = None,
    script: Annotated[Path | None, _says("What goes wrong and when: a YAML file.")] = None,
    seed: Annotated[int | None, _says("Draw the same fleet again; without it one is drawn and printed.")] = None,
    start_ms: Annotated[int | None, _says("Event time to begin at, ms UTC: with --seed every byte repeats.")] = None,
    ledger: Annotated[Path | None, _says("Folder to write down what was sent, for the oracle.")] = None,
) -> int:
    """Be a fleet: heartbeats and probe results of many nodes, with latencies, failures and late events.

    Example: `fleetbeat simulate --nodes 10000 --rate 50000 --duration 60 --seed 7 --ledger sent/`
    """
    with _extra("agent"):
        from agents.simulate.run import SimulateOptions, run_simulate
    return run_simulate(
        SimulateOptions(
            brokers=_reach(brokers, kafka_config),
            nodes=nodes,
            services=services,
            endpoints=endpoints,
            regions=regions,
            rate=rate,
            requests_per_s=requests,
            interval_s=interval,
            duration_s=duration,
            events=events,
            unpaced=unpaced,
            seed=seed,
            ledger=ledger,
            script=script,
            start_ms=start_ms,
        )
    )


@app.command
def check(
    files: Annotated[tuple[Path, ...], Parameter(name="FILE", help="One or more files.", negative=())] = (),
    /,
    *,
    schema: Annotated[
        str | None,
        _says("Print the JSON Schema of a kind of file, for editors: agent, worker, archive, simulate, kafka."),
    ] = None,
    reference: Annotated[str | None, _says("Print the page that lists every key of such a kind.")] = None,
) -> int:
    """Validate objectives, files of --config and --kafka-config, and simulate scripts; print every problem's place.

    Example: `fleetbeat check slos.yaml storm.yaml`
    """
    from schemas.checking import check_file, reference_of, schema_of
    from schemas.yaml_files import DocumentError

    if bool(files) + bool(schema) + bool(reference) != 1:
        raise CannotRunError("check needs files, or --schema KIND, or --reference KIND; expected one of them")
    rooms, status = (_stream_files, _kafka_files, _agent_files), 0
    if schema or reference:
        print(schema_of(schema, rooms) if schema else reference_of(str(reference), rooms), end="")
    for file in files:
        try:
            print(f"{file}: good, {check_file(file, rooms)}")
        except DocumentError as cause:
            print(cause, file=sys.stderr)
            status = FAILED
    return status


def _stream_files() -> "Sequence[FileKind]":
    with _extra("streams"):
        from streams.check import KINDS
    return KINDS


def _kafka_files() -> "Sequence[FileKind]":
    from schemas.kafka.check import KINDS

    return KINDS


def _agent_files() -> "Sequence[FileKind]":
    with _extra("agent"):
        from agents.check import KINDS
    return KINDS


@app.command(name="slo")
def slo_(
    id: Annotated[str | None, _says("One of them; without it all.")] = None,  # noqa: A002 - its name on the command line
    /,
    *,
    brokers: Brokers = None,
    kafka_config: KafkaConfig = None,
) -> int:
    """Show the announced SLOs: what is promised, and which version judges since when.

    Example: `fleetbeat slo checkout-latency --brokers kafka1:9092`
    """
    with _extra("streams"):
        from streams.slo_command import SloOptions, run_slo_command
    return run_slo_command(SloOptions(brokers=_reach(brokers, kafka_config), slo=id))


@app.command
def bench(
    name: Annotated[str, _says("The benchmark.")],
    /,
    *,
    json: Annotated[bool, _flag("Print one JSON line instead of a table.")] = False,
) -> int:
    """Run a benchmark of a checkout, `tests/bench/NAME.py`.

    Example: `fleetbeat bench simulate --json`
    """
    root = Path(__file__).parent
    if not (root / "pyproject.toml").is_file():
        raise CannotRunError("benchmarks are not installed; expected a checkout of fleetbeat and its .venv")
    known = {path.stem: path for path in sorted(root.glob("tests/bench/[a-z]*.py"))}
    if name not in known:
        raise CannotRunError(f"no benchmark {name!r}; expected one of: {', '.join(known)}")
    return int(runpy.run_path(str(known[name]))["main"](json=json))


@app.command(name="version")
def version_() -> int:
    """Print the version.

    Example: `fleetbeat version`
    """
    print(_version())
    return 0


def _extra(name: str) -> AbstractContextManager[None]:
    """Turns the import of a package that is not installed into the extra that brings it."""
    from schemas.extras import extra

    return extra(name)


def _reach(brokers: str | None, kafka_config: Path | None) -> "KafkaPlace":
    """Where Kafka is, and how connections to it are secured."""
    from schemas.kafka.option import reach

    return reach(brokers, kafka_config)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status. Raises CannotRunError, and whatever the command raises."""
    try:
        return app(arguments) or 0
    except CycloptsError as cause:
        raise CannotRunError(cause) from cause
