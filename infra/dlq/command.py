"""`fleetbeat dlq list|show|replay`: what the command line takes. Light to import, since every --help comes by here."""

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from schemas.extras import extra
from schemas.kafka.option import BrokersOption, KafkaConfigOption, reach

app = App(name="dlq", help="Look at dead letters, and send them back.")


def _says(text: str) -> Parameter:
    return Parameter(help=text)


def _flag(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


Topic = Annotated[str | None, _says("Only letters about records of this topic.")]
Reason = Annotated[str | None, _says("Only letters with this reason.")]
Since = Annotated[str | None, _says("Only records appended since then: an age such as 2h, or a time in ISO 8601.")]
Json = Annotated[bool, _flag("JSON lines instead of text.")]


@app.command(name="list")
def list_(  # noqa: PLR0913 - one argument an option
    *,
    topic: Topic = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, Parameter(help="At most so many, the newest.", validator=Number(gte=1))] = 20,
    by_reason: Annotated[bool, _flag("Count by topic and reason instead.")] = False,
    json: Json = False,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
) -> int:
    """List the records that could not be used, the newest first.

    Example: `fleetbeat dlq list --since 2h --by-reason`
    """
    with extra("streams"):
        from infra.dlq.run import run_list, wanted
    asked, where = wanted(topic, reason, since), reach(brokers, kafka_config)
    return run_list(where, asked, limit, by_reason=by_reason, as_json=json)


@app.command
def show(
    origin: Annotated[str, Parameter(name="ORIGIN", help="TOPIC/PARTITION/OFFSET of the original record.")],
    /,
    *,
    json: Json = False,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
) -> int:
    """Show one record as far as it can be read, the place where it stops, and what would bring it back.

    Example: `fleetbeat dlq show probe-results/3/1200`
    """
    with extra("streams"):
        from infra.dlq.run import run_show, wanted
    return run_show(reach(brokers, kafka_config), wanted(None, None, None, (origin,)), as_json=json)


@app.command
def replay(  # noqa: PLR0913 - one argument an option
    origins: Annotated[
        tuple[str, ...], Parameter(name="ORIGIN", help="TOPIC/PARTITION/OFFSET; without it all.", show_default=False)
    ] = (),
    /,
    *,
    topic: Topic = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int | None, Parameter(help="At most so many, the newest.", validator=Number(gte=1))] = None,
    schema_id: Annotated[
        tuple[str, ...],
        Parameter(help="FOUND=RIGHT: another schema id for the frame.", negative=(), show_default=False),
    ] = (),
    key_from_node_id: Annotated[bool, _flag("Send under the node_id that the record names.")] = False,
    yes: Annotated[bool, _flag("Send; without it say what would be sent.")] = False,
    json: Json = False,
    brokers: BrokersOption = None,
    kafka_config: KafkaConfigOption = None,
) -> int:
    """Send letters back to their topic, each once, if they can be read now.

    Example: `fleetbeat dlq replay --reason unknown-schema --schema-id 901=2 --yes`
    """
    with extra("streams"):
        from infra.dlq.corrections import Corrections
        from infra.dlq.run import run_replay, wanted
    corrections = Corrections.parse(schema_id, key_from_node_id=key_from_node_id)
    asked, where = wanted(topic, reason, since, origins), reach(brokers, kafka_config)
    return run_replay(where, asked, limit, corrections, yes=yes, as_json=json)
