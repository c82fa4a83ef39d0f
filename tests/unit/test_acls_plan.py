"""What `topics acl` grants: what the catalog's producers and consumers need, and not more."""

from dataclasses import replace

import pytest

from infra.acls.command import PrincipalError, principals_by_role, rows
from infra.acls.plan import (
    ARCHIVE_GROUP,
    PRINCIPALS,
    REPLAY_TRANSACTION,
    WORKER_GROUP,
    Acl,
    Difference,
    Grant,
    Operation,
    Pattern,
    Resource,
    difference,
    kafka_acls,
    wanted,
)
from infra.dlq.wire import TRANSACTIONAL_ID
from schemas.catalog import load_catalog
from streams.archive.options import ArchiveOptions
from streams.engine.app import APP_ID

TOPICS = list(load_catalog().topics.values())
READ = Grant("User:archive", Resource.TOPIC, "heartbeats", Operation.READ)


def granted(principal: str) -> set[tuple[str, str]]:
    return {(grant.operation.name, grant.name) for grant in wanted(TOPICS, PRINCIPALS) if grant.principal == principal}


def acl(grant: Grant) -> Acl:
    return Acl(grant.principal, grant.resource, grant.name, Pattern.LITERAL, grant.operation, "*", allows=True)


def test_a_collector_may_write_what_agents_produce_and_read_nothing() -> None:
    produced = {topic.name for topic in TOPICS if "agent" in topic.producers}
    assert {"heartbeats", "probe-results"} <= produced
    assert granted("User:collector") == {("WRITE", name) for name in produced}


def test_worker_and_archive_may_do_what_the_catalog_says_in_their_own_groups() -> None:
    for role, group in (("worker", WORKER_GROUP), ("archive", ARCHIVE_GROUP)):
        expected = {("WRITE", topic.name) for topic in TOPICS if role in topic.producers}
        expected |= {("READ", topic.name) for topic in TOPICS if role in topic.consumers}
        expected |= {("READ", group)}
        expected |= {("READ", "fleetbeat-schemas")} if role == "worker" else set()
        assert granted(f"User:{role}") == expected


def test_only_the_admin_may_make_topics_and_change_acls() -> None:
    rare = {"CREATE", "DELETE", "ALTER", "ALTER_CONFIGS", "ALL"}
    may = {grant.principal for grant in wanted(TOPICS, PRINCIPALS) if grant.operation.name in rare}
    assert may == {"User:admin"}


def test_groups_and_transactions_are_called_as_the_commands_call_them() -> None:
    assert (APP_ID, ArchiveOptions("b").group, TRANSACTIONAL_ID) == (WORKER_GROUP, ARCHIVE_GROUP, REPLAY_TRANSACTION)


def test_what_is_there_is_not_created_again_and_what_is_besides_is_told() -> None:
    grants = wanted(TOPICS, PRINCIPALS)
    assert difference(grants, []).missing == tuple(grants)
    assert difference(grants, [acl(grant) for grant in grants]) == Difference((), ())
    more = acl(replace(grants[0], principal="User:collector", name="slo-partials", operation=Operation.WRITE))
    strangers = replace(more, principal="User:somebody")
    found = difference(grants, [*(acl(grant) for grant in grants), more, strangers])
    assert (found.missing, found.unasked) == ((), (more,))
    assert rows(grants, found, created=True)[-1] == ("User:collector", "unasked", "write topic slo-partials")


@pytest.mark.parametrize(
    ("changed", "gives"),
    [
        ({}, True),
        ({"operation": Operation.ALL}, True),
        ({"operation": Operation.WRITE}, False),
        ({"name": "*"}, True),
        ({"name": "heart"}, False),
        ({"name": "heart", "pattern": Pattern.PREFIXED}, True),
        ({"name": "probe", "pattern": Pattern.PREFIXED}, False),
        ({"principal": "User:*"}, True),
        ({"principal": "User:worker"}, False),
        ({"host": "10.0.0.1"}, False),
        ({"resource": Resource.GROUP}, False),
        ({"allows": False}, False),
    ],
)
def test_an_acl_gives_what_kafka_takes_it_to_give(changed: dict[str, object], gives: bool) -> None:  # noqa: FBT001 - a table
    assert replace(acl(READ), **changed).gives(READ) is gives  # type: ignore[arg-type]


def test_principals_may_be_called_otherwise_and_roles_be_added() -> None:
    found = principals_by_role(TOPICS, ["agent=User:edge", "simulate=load", "service=User:checkout"])
    assert found == {**PRINCIPALS, "agent": "User:edge", "simulate": "User:load", "service": "User:checkout"}
    for text in ("nobody=User:x", "agent", "agent="):
        with pytest.raises(PrincipalError, match=f"--principal: value '{text}'; expected ROLE=NAME, with a role of ad"):
            principals_by_role(TOPICS, [text])


def test_a_line_for_kafka_s_own_tool_says_the_same() -> None:
    assert kafka_acls(READ, "k1:9093") == (
        "kafka-acls.sh --bootstrap-server k1:9093 --command-config admin.properties --add "
        "--allow-principal 'User:archive' --operation Read --topic heartbeats"
    )
    alter = Grant("User:admin", Resource.TOPIC, "heartbeats", Operation.ALTER_CONFIGS)
    assert kafka_acls(alter, "k").endswith("--operation AlterConfigs --topic heartbeats")
    cluster = Grant("User:admin", Resource.CLUSTER, "kafka-cluster", Operation.ALTER)
    assert kafka_acls(cluster, "k").endswith("--operation Alter --cluster")
