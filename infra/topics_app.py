"""`fleetbeat topics apply|check|acl`: what the command line takes. Light to import: every --help comes by here."""

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from schemas.extras import extra
from schemas.kafka.option import BrokersOption, KafkaConfigOption, reach

app = App(name="topics")

# Of a topic; a cluster carries some thousands a broker.
MOST_PARTITIONS = 10_000

Partitions = Annotated[
    int, Parameter(help="Of every topic; it stays what it was at first.", validator=Number(gte=1, lte=MOST_PARTITIONS))
]
Local = Annotated[
    bool, Parameter(help="One replica instead of three, for a single broker.", negative=(), show_default=False)
]


@app.command
def apply(
    *,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
    partitions: Partitions = 12,
    local: Local = False,
) -> int:
    """Create what is missing; refuse a schema that would break a reader.

    Example: `fleetbeat topics apply --brokers kafka1:9092`
    """
    with extra("agent"):
        from infra.topics import run_apply
    return run_apply(reach(brokers, kafka_config), partitions, local)


@app.command
def check(
    *,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
    partitions: Partitions = 12,
    local: Local = False,
) -> int:
    """Say how the topics of a cluster differ from the catalog; exit 0 when they do not.

    Example: `fleetbeat topics check --brokers kafka1:9092`
    """
    with extra("agent"):
        from infra.topics import run_check
    return run_check(reach(brokers, kafka_config), partitions, local)


@app.command
def acl(
    *,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
    principal: Annotated[
        tuple[str, ...],
        Parameter(
            help="ROLE=NAME; may be repeated. Without it agent=User:collector, worker=User:worker, "
            "archive=User:archive and admin=User:admin; other roles get nothing.",
            negative=(),
            show_default=False,
        ),
    ] = (),
    dry_run: Annotated[
        bool,
        Parameter(
            help="Create nothing: show what is missing, and the lines for kafka-acls.sh.",
            negative=(),
            show_default=False,
        ),
    ] = False,
) -> int:
    """Allow each command what it needs of topics and groups, and nothing more; what is allowed besides is shown.

    Exit 0 when nothing is missing, 1 with --dry-run when something is.

    Example: `fleetbeat topics acl --kafka-config admin.yaml --dry-run`
    """
    with extra("agent"):
        from infra.acls.command import run_acl
    return run_acl(reach(brokers, kafka_config), principal, dry_run=dry_run)
