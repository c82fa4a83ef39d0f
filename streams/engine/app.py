"""The Faust application: settings that hold at speed, and nothing of Faust's that loses records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import EventT
from mode import CrashingSupervisor

from schemas.kafka import Brokers
from streams.engine.transport import Transport

APP_ID = "fleetbeat-worker"
MAX_MESSAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to reach Kafka and where Faust may keep files."""

    brokers: Brokers
    state_dir: Path
    partitions: int
    app_id: str = APP_ID


class PassThrough(faust.Schema):  # type: ignore[type-arg]  # nor does its schema
    """Hands keys and values on as they are: batches have no key or value to decode."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Any]:  # noqa: ANN401 - Faust's signature
        """The decoder that Faust calls for every event."""

        async def decode(message: Any, **_: Any) -> EventT[Any]:  # noqa: ANN401 - Faust awaits it
            return app.create_event(message.key, message.value, message.headers, message)  # type: ignore[no-any-return]

        return decode


def raw_schema() -> PassThrough:
    """A schema of bytes."""
    return PassThrough(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


class App(faust.App):
    """Faust with polls on `batch_topics`, of the broker's own batches on `raw_topics`, and signals at rebalances.

    `outputs`: for a topic, the one into which what is read of it goes before its commits move; when that one is created
    anew, those commits promise what is no longer there.
    """

    batch_topics: frozenset[str] = frozenset()
    raw_topics: frozenset[str] = frozenset()
    outputs: Mapping[str, str] = MappingProxyType({})
    on_ready: Callable[[], None] = staticmethod(lambda: None)
    on_lost: Callable[[], None] = staticmethod(lambda: None)

    def on_rebalance_end(self) -> None:
        """Every partition is sought to its commit, unless what was assigned is being taken away again already."""
        if self.consumer.outdated:  # type: ignore[attr-defined]
            self.consumer.stop_flow()
            self.flow_control.suspend()
            return
        super().on_rebalance_end()
        self.on_ready()


def nothing_is_done(app: App) -> bool:
    """A rebalance or a stop has begun: it waits until every poll is let go of, and nothing is counted meanwhile."""
    return app.rebalancing or app.should_stop


def _credentials(brokers: Brokers) -> SASLCredentials | SSLCredentials | None:
    """What Faust's clients are told, in Faust's own words."""
    if isinstance(brokers, str):
        return None
    context, sasl = brokers.settings.get("ssl_context"), brokers.security.sasl
    if sasl is None:
        return SSLCredentials(context)
    password = brokers.settings["sasl_plain_password"]
    return SASLCredentials(username=sasl.user, password=password, ssl_context=context, mechanism=sasl.mechanism)


def create_app(
    settings: EngineSettings,
    batch_topics: frozenset[str],
    raw_topics: frozenset[str] = frozenset(),
    outputs: Mapping[str, str] = MappingProxyType({}),
) -> App:
    """The application without its processors."""
    app = App(
        settings.app_id,
        broker=[f"kafka://{broker.strip()}" for broker in str(settings.brokers).split(",")],
        broker_credentials=_credentials(settings.brokers),
        datadir=str(settings.state_dir),
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor=CrashingSupervisor,
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        topic_allow_declare=True,  # only Faust's leader topic is left to declare: ours exist before a worker starts
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_MESSAGE_BYTES,
        consumer_metadata_max_age_ms=15_000,  # a topic that was deleted, and is there again, is heard of by then
        broker_max_poll_records=20_000,
        broker_session_timeout=6,
        broker_heartbeat_interval=1.5,
        broker_commit_interval=1.0,
        broker_commit_every=1 << 60,  # by time only: a count would commit in the middle of a poll
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        stream_recovery_delay=0,
        producer_linger=0.01,
        producer_max_batch_size=1 << 19,  # a request for each state page would take as long as all of them together
        producer_request_timeout=15,
        producer_max_request_size=MAX_MESSAGE_BYTES,
        producer_compression_type=None,  # cells and pages, nearly all of the bytes, are compressed already
        producer_acks=-1,
    )
    app.batch_topics, app.raw_topics, app.outputs = batch_topics, raw_topics, outputs
    app.transport = Transport(app.conf.broker, app, app.loop)
    app.producer.buffer.max_messages = 1 << 30  # we await acks ourselves; Faust would wait message by message
    return app
