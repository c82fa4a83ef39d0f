"""What has to be done so that a cluster's topics are as the contract wants them. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastavro.schema import to_parsing_canonical_form

from schemas.catalog import SchemaVersion, Topic
from schemas.compatibility import check_backward

SCHEMAS_TOPIC = "fleetbeat-schemas"  # key: subject; value: JSON list of the versions that were applied; compacted
_MS_PER_HOUR = 3_600_000
_BYTES_PER_MB = 1 << 20
_MIN_INSYNC = "min.insync.replicas"
_MAX_MESSAGE = "max.message.bytes"


@dataclass(frozen=True, slots=True)
class ClusterProfile:
    """What depends on the cluster and not on the topic; `partitions` is of every topic of the contract."""

    partitions: int
    replication: int
    min_insync_replicas: int

    @classmethod
    def local(cls, partitions: int = 12) -> "ClusterProfile":
        """For a single broker: one copy."""
        return cls(partitions, replication=1, min_insync_replicas=1)

    @classmethod
    def cluster(cls, partitions: int = 12) -> "ClusterProfile":
        """With acks=all, a record that was acknowledged survives the loss of one broker."""
        return cls(partitions, replication=3, min_insync_replicas=2)


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as it should be."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as it is: `config` in effect, `own` set on the topic itself, `replication` of its poorest partition."""

    partitions: int
    replication: int
    config: Mapping[str, str]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AppliedSchema:
    """A schema version that was once applied to this cluster, so records of it may be stored."""

    version: int
    id: int
    text: str


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What was found on the cluster; `schemas` by subject."""

    brokers: int
    topics: Mapping[str, FoundTopic]
    schemas: Mapping[str, tuple[AppliedSchema, ...]]


@dataclass(frozen=True, slots=True)
class Create:
    """A topic is missing."""

    topic: str
    wanted: WantedTopic


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, as it is and as it should be."""

    key: str
    found: str | None
    wanted: str


@dataclass(frozen=True, slots=True)
class Alter:
    """Settings of a topic differ; `own` is all that the topic will have set, since Kafka replaces the whole list."""

    topic: str
    changes: tuple[Change, ...]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """New schema versions are to be noted in SCHEMAS_TOPIC."""

    topic: str
    subject: str
    versions: tuple[AppliedSchema, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Something differs that must not be changed behind the data's back."""

    topic: str
    reason: str


Action = Create | Alter | Record | Refuse


def plan(topics: Sequence[Topic], state: ClusterState, profile: ClusterProfile) -> list[Action]:
    """Everything to do, in the order to do it; nothing may be done when one of the actions is Refuse."""
    wanted = [wanted_topic(topic, profile) for topic in topics]
    record = WantedTopic(
        SCHEMAS_TOPIC, 1, {**_settings("compact", None, profile), "message.timestamp.type": "LogAppendTime"}
    )
    actions: list[Action] = []
    for topic in (record, *wanted):
        actions.extend(_plan_topic(topic, state, profile))
    owners = {version.id: topic.subject for topic in topics for version in topic.versions}
    for described in topics:
        actions.extend(_plan_schemas(described, state.schemas.get(described.subject, ()), owners))
    return actions


def wanted_topic(topic: Topic, profile: ClusterProfile) -> WantedTopic:
    """The topic's description as Kafka's settings."""
    config = {**_settings(topic.cleanup, topic.retention_hours, profile), "message.timestamp.type": topic.timestamps}
    if topic.segment_mb is not None:
        config["segment.bytes"] = str(topic.segment_mb * _BYTES_PER_MB)
    if topic.max_message_mb is not None:
        config[_MAX_MESSAGE] = str(topic.max_message_mb * _BYTES_PER_MB)
    return WantedTopic(topic.name, profile.partitions, config)


def _settings(cleanup: str, retention_hours: int | None, profile: ClusterProfile) -> dict[str, str]:
    return {
        "cleanup.policy": cleanup,
        "retention.ms": "-1" if retention_hours is None else str(retention_hours * _MS_PER_HOUR),
        _MIN_INSYNC: str(profile.min_insync_replicas),
    }


def _plan_topic(wanted: WantedTopic, state: ClusterState, profile: ClusterProfile) -> Iterator[Action]:
    found = state.topics.get(wanted.name)
    if found is None:
        if state.brokers < profile.replication:
            yield Refuse(
                wanted.name,
                f"wants {profile.replication} replicas and the cluster has {_count(state.brokers, 'broker')}; "
                "add brokers, or say --local where one copy is enough",
            )
        else:
            yield Create(wanted.name, wanted)
        return
    if found.partitions != wanted.partitions:
        yield Refuse(
            wanted.name,
            f"has {_count(found.partitions, 'partition')}, asked for {wanted.partitions}; "
            "a changed count would move keys to other partitions, away from their state: "
            f"say --partitions {found.partitions}, or make the topic anew",
        )
    if found.replication < profile.replication:
        yield Refuse(
            wanted.name,
            f"has {_count(found.replication, 'replica')}, wants {profile.replication}; "
            "move it with kafka-reassign-partitions.sh, or say --local where one copy is enough",
        )
    changes = tuple(
        Change(key, found.config.get(key), value)
        for key, value in wanted.config.items()
        if not _satisfies(key, found.config.get(key), value)
    )
    if changes:
        yield Alter(wanted.name, changes, {**found.own, **{change.key: change.wanted for change in changes}})


def _satisfies(key: str, found: str | None, wanted: str) -> bool:
    """Equal, except that policies have no order, and that more safety or room than asked for is left alone."""
    if found is None:
        return False
    if key == "cleanup.policy":
        return set(found.split(",")) == set(wanted.split(","))
    if key in (_MIN_INSYNC, _MAX_MESSAGE):
        return int(found) >= int(wanted)
    return found == wanted


def _plan_schemas(topic: Topic, applied: Sequence[AppliedSchema], owners: Mapping[int, str]) -> Iterator[Action]:
    """What was applied must stay known under its id, and the latest schema must read all of it."""
    reasons = [reason for schema in applied for reason in _reasons_against(topic, schema, owners)]
    if topic.versions and topic.compatibility != "NONE":
        for version in topic.versions:
            if version.version not in {schema.version for schema in applied}:
                reasons += _unreadable(topic.latest, version.version, version.text)
    for reason in reasons:
        yield Refuse(topic.name, reason)
    missing = len(topic.versions) > len(applied)
    if missing and not reasons:
        yield Record(topic.name, topic.subject, tuple(AppliedSchema(v.version, v.id, v.text) for v in topic.versions))


def _reasons_against(topic: Topic, applied: AppliedSchema, owners: Mapping[int, str]) -> Iterator[str]:
    now = next((version for version in topic.versions if version.version == applied.version), None)
    told = _unreadable(topic.latest, applied.version, applied.text) if topic.versions else []
    if topic.compatibility != "NONE":
        yield from told
    called = f"version {applied.version} (id {applied.id}) was applied to this cluster"
    if owners.get(applied.id, topic.subject) != topic.subject:
        yield f"{called}, and its id now belongs to {owners[applied.id]}; give that one a new id"
    elif now is None:
        yield f"{called}, and this fleetbeat does not know it; use a newer fleetbeat, or put its file back"
    elif now.id != applied.id:
        yield f"{called}, and now has id {now.id}; an id is never changed: stored records carry it"
    elif not told and _canonical(now.text) != _canonical(applied.text):
        new = topic.latest.version + 1
        yield f"{called}, and {now.file} was edited since; leave it as it was and add version {new}"


def _unreadable(reader: SchemaVersion, version: int, text: str) -> list[str]:
    problems = check_backward(reader.text, text)
    return [f"{reader.file} cannot read what was written with version {version}: {problem}" for problem in problems]


def _canonical(text: str) -> str:
    """Avro's parsing canonical form: without documentation and other things that do not change the bytes."""
    return str(to_parsing_canonical_form(json.loads(text)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
