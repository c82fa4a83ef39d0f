"""Other people's clients and our topics: serializers and kcat find the schemas under the registry paths."""

import asyncio
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from infra.kafka import LocalKafka
from schemas.blocks import BlockReader
from schemas.catalog import load_catalog
from schemas.codec import decode, encode
from schemas.records import Heartbeat, ProbeResult
from streams.views.registry import CONTENT_TYPE, registry_routes

PRODUCERS = Path(__file__).parents[2] / "examples" / "producers"
SUBJECT = "probe-results-value"
DEADLINE_S = 90.0


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """The address of a server that has the registry routes and nothing else."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    application = web.Application()
    application.add_routes(registry_routes(load_catalog()))
    runner = web.AppRunner(application)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(DEADLINE_S)
        yield f"http://127.0.0.1:{port}"
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(DEADLINE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of an answer; a body is posted, as it is when it is bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": CONTENT_TYPE})  # noqa: S310 - our server
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:  # noqa: S310 - our server
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def text(schema_id: int) -> str:
    return load_catalog().schema(schema_id).text


def test_schemas_and_subjects_are_found_by_id_and_name(registry: str) -> None:
    described = {"subject": SUBJECT, "version": 1, "id": 2, "schema": text(2)}
    subjects = [
        "dead-letter-replays-value",
        "dead-letters-value",
        "heartbeats-value",
        "node-states-value",
        "objectives-value",
        SUBJECT,
        "request-counts-value",
        "slo-partials-value",
        "slo-status-value",
    ]
    answers = {
        "/schemas/types": ["AVRO"],
        "/schemas/ids/2": {"schema": text(2)},
        "/schemas/ids/2/versions": [{"subject": SUBJECT, "version": 1}],
        "/subjects": subjects,
        f"/subjects/{SUBJECT}/versions": [1],
        f"/subjects/{SUBJECT}/versions/1": described,
        f"/subjects/{SUBJECT}/versions/latest": described,
        f"/subjects/{SUBJECT}/versions/-1": described,
        "/config": {"compatibilityLevel": "BACKWARD_TRANSITIVE"},
        f"/config/{SUBJECT}": {"compatibilityLevel": "BACKWARD_TRANSITIVE"},
    }
    assert {path: ask(registry + path) for path in answers} == {path: (200, body) for path, body in answers.items()}


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/schemas/ids/77", 40403, "schema id '77' not found; expected one of [1, 2, 3, "),
        (
            "/schemas/ids/two",
            40403,
            "schema id 'two' not found; expected one of [1, 2, 3, ",
        ),
        ("/subjects/nothing-value/versions", 40401, "subject 'nothing-value' not found; expected one of "),
        ("/subjects/nothing-value/versions/1", 40401, "subject 'nothing-value' not found; expected one of "),
        ("/config/nothing-value", 40401, "subject 'nothing-value' not found; expected one of "),
        (f"/subjects/{SUBJECT}/versions/2", 40402, f"{SUBJECT} has no version 2; the latest is 1"),
        (f"/subjects/{SUBJECT}/versions/0", 42202, "version '0'; expected a whole number from 1, or latest"),
        (f"/subjects/{SUBJECT}/versions/newest", 42202, "version 'newest'; expected a whole number from 1, or latest"),
    ],
)
def test_what_is_not_there_is_said_with_confluents_codes(registry: str, path: str, code: int, message: str) -> None:
    status, answer = ask(registry + path)
    assert (status, answer["error_code"]) == (code // 100, code)
    assert answer["message"].startswith(message)


def test_a_schema_is_found_however_a_client_writes_it(registry: str) -> None:
    """Spaces, the order of keys, docs, full names and wrapped primitives mean nothing on the wire."""
    schema = json.loads(text(2))
    namespace = schema.pop("namespace")
    schema["name"] = f"{namespace}.{schema['name']}"
    for field in schema["fields"]:
        field.pop("doc", None)
        field["type"] = {"type": "string"} if field["type"] == "string" else field["type"]
    rewritten = json.dumps(schema, sort_keys=True, indent=2)
    for posted in (text(2), rewritten):
        assert ask(f"{registry}/subjects/{SUBJECT}", {"schema": posted}) == (
            200,
            {"subject": SUBJECT, "version": 1, "id": 2, "schema": text(2)},
        )
        body = {"schema": posted, "schemaType": "AVRO"}
        assert ask(f"{registry}/subjects/{SUBJECT}/versions?normalize=false", body) == (200, {"id": 2})


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        ("", {"schema": text(1)}, 40403, "probe-results-value has no version that writes what this schema writes"),
        ("/versions", {"schema": text(1)}, 42205, "schemas are read-only here: a new version of probe-results-value"),
        ("", {"schema": '{"type": "record"}'}, 42201, "not an Avro schema: "),
        ("", {"schema": '"nothing"'}, 42201, "not an Avro schema: "),
        ("", {"schema": "[" * 100_000}, 42201, "not an Avro schema: "),
        ("/versions", {"schema": "no JSON"}, 42201, "not an Avro schema: "),
        ("", {"schema": text(2), "schemaType": "PROTOBUF"}, 42201, "schemaType 'PROTOBUF'; expected AVRO"),
        ("", {"scheme": text(2)}, 42201, 'expected {"schema": "<an Avro schema as a string>"}'),
        ("", [1], 42201, 'expected {"schema": "<an Avro schema as a string>"}'),
        ("", b"\xff{", 400, "the body is not JSON: "),
    ],
)
def test_what_cannot_be_looked_up_or_registered_is_refused(
    registry: str, path: str, body: object, code: int, message: str
) -> None:
    status, answer = ask(f"{registry}/subjects/{SUBJECT}{path}", body)
    assert (status, answer["error_code"]) == (int(str(code)[:3]), code)
    assert answer["message"].startswith(message)


def test_nothing_can_be_written_or_deleted(registry: str) -> None:
    for method, path in (("DELETE", f"/subjects/{SUBJECT}"), ("PUT", "/config"), ("DELETE", "/config")):
        request = urllib.request.Request(registry + path, method=method)  # noqa: S310 - our server
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=DEADLINE_S)  # noqa: S310 - our server
        with caught.value:
            assert caught.value.code == 405


@pytest.fixture
def client(registry: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry}) as client:
        yield client


@pytest.mark.parametrize("settings", [{"use.latest.version": True}, {}], ids=["latest", "lookup"])
def test_a_serializer_of_confluent_writes_what_our_codec_reads(
    client: SchemaRegistryClient, settings: dict[str, Any]
) -> None:
    serializer = AvroSerializer(client, text(2), conf={"auto.register.schemas": False, **settings})
    context = SerializationContext("probe-results", MessageField.VALUE)
    fields = runpy.run_path(str(PRODUCERS / "python_avro_serializer.py"))["probe_result"]("n1")
    value = serializer(fields, context)
    record = decode(value)
    assert isinstance(record, ProbeResult)
    assert record == ProbeResult(**fields)
    assert BlockReader("probe-results").read([b"n1"], [value]).frame["ts"].to_list() == [fields["ts"]]
    assert AvroDeserializer(client)(encode(record), context)["latency_us"] == record.latency_us


def test_a_client_may_register_what_is_there_and_nothing_else(client: SchemaRegistryClient) -> None:
    assert client.register_schema(SUBJECT, Schema(text(2), "AVRO")) == 2
    assert client.lookup_schema(SUBJECT, Schema(text(2), "AVRO")).version == 1
    assert client.get_latest_version(SUBJECT).schema_id == 2
    with pytest.raises(SchemaRegistryError, match="schemas are read-only here"):
        client.register_schema(SUBJECT, Schema(text(1), "AVRO"))


@pytest.mark.kafka
def test_the_examples_for_producers_write_what_everybody_reads(
    registry: str, topics: Callable[[int], LocalKafka]
) -> None:
    kafka = topics(2)
    run(sys.executable, str(PRODUCERS / "python_avro_serializer.py"), kafka.bootstrap, registry)
    run(sys.executable, str(PRODUCERS / "python_plain_bytes.py"), kafka.bootstrap)
    written = consume(kafka.bootstrap, "probe-results", 2)
    assert {key for key, _ in written} == {b"example-avro", b"example-plain"}
    block = BlockReader("probe-results").read([key for key, _ in written], [value for _, value in written])
    assert block.rejects == ()
    assert block.frame["latency_us"].to_list() == [48_211] * 2


@pytest.mark.kafka
def test_kcat_prints_every_field_of_what_fleetbeat_writes(registry: str, topics: Callable[[int], LocalKafka]) -> None:
    from confluent_kafka import Producer

    kafka = topics(1)
    beat = Heartbeat("n1", 1_767_225_600_123, "b", 1, 0, 5_000, "UP", "eu-1", "eu-1a", "0.1.0", health=97)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce("heartbeats", key=b"n1", value=encode(beat))
    assert producer.flush(DEADLINE_S) == 0
    (printed,) = kcat(kafka.bootstrap, registry, "heartbeats")
    assert printed == {
        "node_id": "n1", "ts": 1_767_225_600_123, "boot_id": "b", "boot_ts": 1, "seq": 0, "interval_ms": 5_000,
        "state": "UP", "region": "eu-1", "zone": "eu-1a", "agent_version": "0.1.0", "health": {"int": 97},
        "cpu_permille": None, "memory_permille": None, "disk_permille": None, "spooled": 0, "dropped": 0, "labels": [],
    }  # fmt: skip


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S * 2, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def kcat(bootstrap: str, registry: str, topic: str) -> list[dict[str, Any]]:
    """What kcat prints of a topic, from its beginning to its end; skips where kcat cannot."""
    if shutil.which("kcat") is None:
        message = "kcat is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    if "Avro" not in run("kcat", "-V"):
        pytest.skip("this kcat is built without Avro, as Debian's is: see docs/producing.md")
    lines = run("kcat", "-C", "-b", bootstrap, "-s", "value=avro", "-r", registry, "-t", topic, "-e", "-q")
    return [json.loads(line) for line in lines.splitlines()]


def consume(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    got: list[tuple[bytes | None, bytes | None]] = []
    deadline = time.monotonic() + DEADLINE_S
    try:
        while len(got) < count:
            assert time.monotonic() < deadline, f"{len(got)} of {count} records"
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                got.append((message.key(), message.value()))
    finally:
        consumer.close()
    return got
