"""What is done to a cluster's topics, from what was found there."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastavro import parse_schema

from infra.topics.plan import (
    SCHEMAS_TOPIC,
    Action,
    Alter,
    AppliedSchema,
    Change,
    ClusterProfile,
    ClusterState,
    Create,
    FoundTopic,
    Record,
    Refuse,
    plan,
    wanted_topic,
)
from schemas.catalog import SchemaVersion, Topic, load_catalog

LOCAL = ClusterProfile.local(12)
PROBES = load_catalog().topic("probe-results")
STATUS = load_catalog().topic("slo-status")
PAGES = load_catalog().topic("fleetbeat-worker-pages-changelog")
V1 = PROBES.latest
NOTHING = ClusterState(1, {}, {})


def as_wanted(topic: Topic, profile: ClusterProfile = LOCAL) -> FoundTopic:
    config = wanted_topic(topic, profile).config
    return FoundTopic(profile.partitions, profile.replication, config, config)


def found(*topics: Topic, profile: ClusterProfile = LOCAL) -> ClusterState:
    """A cluster on which everything is as it should be."""
    notes = {t.subject: tuple(AppliedSchema(v.version, v.id, v.text) for v in t.versions) for t in topics if t.versions}
    record = {"cleanup.policy": "compact", "retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
    record["min.insync.replicas"] = str(profile.min_insync_replicas)
    known = {topic.name: as_wanted(topic, profile) for topic in topics}
    known[SCHEMAS_TOPIC] = FoundTopic(1, profile.replication, record, record)
    return ClusterState(profile.replication, known, notes)


def but(state: ClusterState, topic: Topic, **change: Any) -> ClusterState:  # noqa: ANN401 - fields of FoundTopic
    return replace(state, topics={**state.topics, topic.name: replace(state.topics[topic.name], **change)})


def with_config(topic: Topic, **settings: str) -> dict[str, str]:
    return {**as_wanted(topic).config, **{key.replace("_", "."): value for key, value in settings.items()}}


def version(number: int, schema_id: int, edit: Callable[[dict[str, Any]], object]) -> SchemaVersion:
    """The probe result's schema after an edit."""
    schema = json.loads(V1.text)
    edit(schema)
    parsed: Any = parse_schema(json.loads(json.dumps(schema)))
    return SchemaVersion(number, schema_id, f"probe_result.v{number}.avsc", json.dumps(schema), parsed)


def latency_as(kind: str) -> Callable[[dict[str, Any]], None]:
    def edit(schema: dict[str, Any]) -> None:
        next(field for field in schema["fields"] if field["name"] == "latency_us")["type"] = kind

    return edit


def add_field(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "hops", "type": "int", "default": 0})


def describe(schema: dict[str, Any]) -> None:
    schema["doc"] = "Other words."


def refusals(actions: list[Action]) -> list[tuple[str, str]]:
    return [(action.topic, action.reason) for action in actions if isinstance(action, Refuse)]


def test_on_an_empty_cluster_everything_is_created_and_recorded() -> None:
    actions = plan([PROBES, PAGES], NOTHING, LOCAL)
    assert [(type(action), action.topic) for action in actions] == [
        (Create, SCHEMAS_TOPIC),
        (Create, PROBES.name),
        (Create, PAGES.name),
        (Record, PROBES.name),
    ]


def test_settings_come_from_the_contract() -> None:
    assert wanted_topic(PROBES, ClusterProfile.cluster(12)).config == {
        "cleanup.policy": "delete",
        "retention.ms": str(7 * 24 * 3600 * 1000),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2",
    }
    pages = wanted_topic(PAGES, LOCAL).config
    assert (pages["retention.ms"], pages["segment.bytes"]) == ("-1", str(32 * 1024 * 1024))
    assert pages["max.message.bytes"] == str(8 << 20)  # as large as a worker may make a page: see streams.engine.app


@pytest.mark.parametrize(("has", "asked"), [(1 << 20, True), (8 << 20, False), (16 << 20, False)])
def test_a_topic_that_takes_larger_records_than_asked_for_is_left_alone(has: int, *, asked: bool) -> None:
    state = but(found(PAGES), PAGES, config=with_config(PAGES, max_message_bytes=str(has)))
    actions = plan([PAGES], state, LOCAL)
    assert [change.key for action in actions if isinstance(action, Alter) for change in action.changes] == (
        ["max.message.bytes"] if asked else []
    )


def test_a_cluster_that_is_as_wanted_needs_nothing() -> None:
    assert plan([PROBES, STATUS, PAGES], found(PROBES, STATUS, PAGES), LOCAL) == []


@pytest.mark.parametrize("partitions", [6, 24])
def test_another_partition_count_is_refused_and_never_altered(partitions: int) -> None:
    actions = plan([PROBES], but(found(PROBES), PROBES, partitions=partitions), LOCAL)
    assert [type(action) for action in actions] == [Refuse]
    assert f"has {partitions} partitions, asked for 12; a changed count would move keys" in refusals(actions)[0][1]


def test_create_time_is_repaired_and_other_settings_of_the_topic_stay() -> None:
    own = {**with_config(PROBES), "max.message.bytes": "2000000", "message.timestamp.type": "CreateTime"}
    actions = plan([PROBES], but(found(PROBES), PROBES, config=own, own=own), LOCAL)
    assert actions == [
        Alter(
            PROBES.name,
            (Change("message.timestamp.type", "CreateTime", "LogAppendTime"),),
            {**own, "message.timestamp.type": "LogAppendTime"},
        )
    ]


def test_policies_have_no_order() -> None:
    config = {**with_config(STATUS), "cleanup.policy": "delete,compact"}
    assert plan([STATUS], but(found(STATUS), STATUS, config=config), LOCAL) == []


def test_more_safety_than_asked_for_is_left_alone() -> None:
    state = found(PROBES, profile=ClusterProfile.cluster(12))
    assert plan([PROBES], state, LOCAL) == []


def test_too_few_replicas_are_refused_with_what_to_do() -> None:
    state = replace(found(PROBES), brokers=3)
    sentences = dict(refusals(plan([PROBES], state, ClusterProfile.cluster(12))))
    assert sentences[PROBES.name].startswith("has 1 replica, wants 3; move it with kafka-reassign-partitions.sh")


def test_a_cluster_topic_on_one_broker_is_refused() -> None:
    sentences = dict(refusals(plan([PROBES], NOTHING, ClusterProfile.cluster(12))))
    assert sentences[PROBES.name].startswith("wants 3 replicas and the cluster has 1 broker")


def test_a_compatible_version_is_recorded_beside_the_old_one() -> None:
    newer = replace(PROBES, versions=(V1, version(2, 9, add_field)))
    [action] = plan([newer], found(PROBES), LOCAL)
    assert isinstance(action, Record)
    assert [(v.version, v.id) for v in action.versions] == [(1, V1.id), (2, 9)]


def test_an_incompatible_version_is_refused_with_the_field_named() -> None:
    newer = replace(PROBES, versions=(V1, version(2, 9, latency_as("string"))))
    [(topic, reason)] = refusals(plan([newer], found(PROBES), LOCAL))
    assert topic == PROBES.name
    assert reason == (
        "probe_result.v2.avsc cannot read what was written with version 1: "
        "field `latency_us`: type changed from long to string"
    )


def test_an_incompatible_version_is_refused_even_where_nothing_was_recorded() -> None:
    newer = replace(PROBES, versions=(V1, version(2, 9, latency_as("string"))))
    assert "field `latency_us`" in refusals(plan([newer], NOTHING, LOCAL))[0][1]


def test_every_applied_version_counts_not_only_the_last() -> None:
    second = version(2, 9, latency_as("double"))
    third = version(3, 10, latency_as("float"))
    state = found(replace(PROBES, versions=(V1, second)))
    [(_, reason)] = refusals(plan([replace(PROBES, versions=(V1, second, third))], state, LOCAL))
    assert reason == (
        "probe_result.v3.avsc cannot read what was written with version 2: "
        "field `latency_us`: type changed from double to float"
    )


def test_an_applied_version_that_was_edited_is_refused() -> None:
    edited = replace(PROBES, versions=(version(1, V1.id, add_field),))
    [(_, reason)] = refusals(plan([edited], found(PROBES), LOCAL))
    assert reason.endswith("probe_result.v1.avsc was edited since; leave it as it was and add version 2")


def test_words_in_an_applied_version_may_change() -> None:
    assert plan([replace(PROBES, versions=(version(1, V1.id, describe),))], found(PROBES), LOCAL) == []


def test_an_applied_version_that_is_no_longer_known_is_refused() -> None:
    state = found(replace(PROBES, versions=(V1, version(2, 9, add_field))))
    [(_, reason)] = refusals(plan([PROBES], state, LOCAL))
    assert "version 2 (id 9) was applied to this cluster, and this fleetbeat does not know it" in reason


def test_an_applied_id_keeps_its_meaning() -> None:
    moved = replace(PROBES, versions=(replace(V1, id=77),))
    thief = replace(STATUS, versions=(replace(STATUS.latest, id=V1.id),))
    assert "now has id 77" in refusals(plan([moved], found(PROBES), LOCAL))[0][1]
    sentences = dict(refusals(plan([moved, thief], found(PROBES, STATUS), LOCAL)))
    assert "its id now belongs to slo-status-value" in sentences[PROBES.name]
