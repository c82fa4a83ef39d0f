"""The ACLs that the commands need, from the catalog's producers and consumers, and how a cluster's differ. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from infra.topics.plan import SCHEMAS_TOPIC
from schemas.catalog import Topic

WORKER_GROUP, ARCHIVE_GROUP, REPLAY_TRANSACTION = "fleetbeat-worker", "fleetbeat-archive", "fleetbeat-dlq-replay"
CLUSTER_NAME = "kafka-cluster"
ANY_HOST = "*"
# Who a role is on the cluster, unless the command line says otherwise. Roles are named as producers and consumers are
# in schemas/topics; those without a principal get nothing: a fleet that is simulated, services of one's own.
PRINCIPALS = {"agent": "User:collector", "worker": "User:worker", "archive": "User:archive", "admin": "User:admin"}
# What the admin does besides being producer and consumer of everything: topics, ACLs, the commands dlq and state.
_GROUPS = {"worker": (WORKER_GROUP,), "archive": (ARCHIVE_GROUP,), "admin": (WORKER_GROUP, ARCHIVE_GROUP)}


class Resource(IntEnum):
    """What an ACL is about, by Kafka's number."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Pattern(IntEnum):
    """How a resource is named, by Kafka's number."""

    LITERAL = 3
    PREFIXED = 4


class Operation(IntEnum):
    """What is allowed, by Kafka's number."""

    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


# Whoever may do the first may do the second: Kafka's StandardAuthorizer has it so.
_IMPLIED = {
    Operation.DESCRIBE: {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER},
    Operation.DESCRIBE_CONFIGS: {Operation.ALTER_CONFIGS},
}


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A principal may do something, from any host."""

    principal: str
    resource: Resource
    name: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class Acl:
    """One that a cluster has; numbers that we do not know stay numbers."""

    principal: str
    resource: int
    name: str
    pattern: int
    operation: int
    host: str
    allows: bool

    def gives(self, grant: Grant) -> bool:
        """Whether the grant needs nothing more."""
        named = self.name in (grant.name, "*") if self.pattern == Pattern.LITERAL else grant.name.startswith(self.name)
        implied = {grant.operation, Operation.ALL, *_IMPLIED.get(grant.operation, ())}
        whom = self.principal in (grant.principal, "User:*") and self.host == ANY_HOST
        return self.allows and whom and self.resource == grant.resource and named and self.operation in implied


@dataclass(frozen=True, slots=True)
class Difference:
    """`missing` is to be created. `unasked` is what our principals have besides: nobody removes it but the reader."""

    missing: tuple[Grant, ...]
    unasked: tuple[Acl, ...]


def wanted(topics: Sequence[Topic], principals: Mapping[str, str]) -> list[Grant]:
    """What every role needs; `principals` by role. A role that two lines are about has both."""
    found: set[Grant] = set()
    for role, principal in principals.items():
        found.update(Grant(principal, *what) for what in _of_role(role, topics))
    return sorted(found)


def difference(grants: Sequence[Grant], there: Sequence[Acl]) -> Difference:
    """What a cluster with the ACLs `there` lacks of the grants, and what the same principals have besides."""
    ours = {grant.principal for grant in grants}
    missing = tuple(grant for grant in grants if not any(acl.gives(grant) for acl in there))
    unasked = tuple(acl for acl in there if acl.principal in ours and not _is_one_of(acl, grants))
    return Difference(missing, unasked)


def roles(topics: Iterable[Topic]) -> list[str]:
    """All that a principal can be given for."""
    return sorted({*PRINCIPALS, *(role for topic in topics for role in (*topic.producers, *topic.consumers))})


def kafka_acls(grant: Grant, brokers: str) -> str:
    """The same as a line for Kafka's own tool."""
    resource = {
        Resource.TOPIC: f"--topic {grant.name}",
        Resource.GROUP: f"--group {grant.name}",
        Resource.CLUSTER: "--cluster",
        Resource.TRANSACTIONAL_ID: f"--transactional-id {grant.name}",
    }[grant.resource]
    operation = "".join(part.capitalize() for part in grant.operation.name.split("_"))
    return (
        f"kafka-acls.sh --bootstrap-server {brokers} --command-config admin.properties --add "
        f"--allow-principal '{grant.principal}' --operation {operation} {resource}"
    )


def _of_role(role: str, topics: Sequence[Topic]) -> Iterator[tuple[Resource, str, Operation]]:
    for topic in topics:
        if role in topic.producers:
            yield Resource.TOPIC, topic.name, Operation.WRITE
        if role in topic.consumers:
            yield Resource.TOPIC, topic.name, Operation.READ
    if role == "worker":
        yield Resource.TOPIC, SCHEMAS_TOPIC, Operation.READ
    for group in _GROUPS.get(role, ()):
        yield Resource.GROUP, group, Operation.READ
    if role == "admin":
        yield from _of_admin(topics)


def _of_admin(topics: Sequence[Topic]) -> Iterator[tuple[Resource, str, Operation]]:
    """Topics and ACLs are this one's alone; `dlq` and `state` read, write and delete what others wrote."""
    for name in (SCHEMAS_TOPIC, *(topic.name for topic in topics)):
        for operation in (Operation.CREATE, Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER_CONFIGS):
            yield Resource.TOPIC, name, operation
    for group in _GROUPS["admin"]:
        yield Resource.GROUP, group, Operation.DELETE
    yield Resource.TRANSACTIONAL_ID, REPLAY_TRANSACTION, Operation.WRITE
    yield Resource.CLUSTER, CLUSTER_NAME, Operation.ALTER  # ACLs themselves


def _is_one_of(acl: Acl, grants: Sequence[Grant]) -> bool:
    if not acl.allows or acl.pattern != Pattern.LITERAL or acl.host != ANY_HOST:
        return False
    same = (acl.principal, acl.resource, acl.name, acl.operation)
    return any(same == (grant.principal, grant.resource, grant.name, grant.operation) for grant in grants)
