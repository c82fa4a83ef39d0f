"""What a group's members hear of each other: Faust's own assignor, as the leader and as a member, without a broker."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from streams.engine.app import App, EngineSettings, create_app
from streams.engine.members import Group, advertise

PARTITIONS = 4
TOPICS = ("heartbeats", "slo-partials")


def member(folder: Path, address: str) -> App:
    app = create_app(EngineSettings("127.0.0.1:9", folder, PARTITIONS), frozenset(TOPICS))
    advertise(app, address)
    return app


def meet(*apps: App) -> None:
    """The first leads: everyone joins and is given its assignment, as bytes."""
    cluster: Any = SimpleNamespace(partitions_for_topic=lambda _: set(range(PARTITIONS)))
    assignors: list[Any] = [app.assignor for app in apps]
    joining = {f"m{number}": assignor.metadata(set(TOPICS)) for number, assignor in enumerate(assignors)}
    given = assignors[0].assign(cluster, joining)
    for number, assignor in enumerate(assignors):
        assignor.on_assignment(ConsumerProtocolMemberAssignment.decode(given[f"m{number}"].encode()))


def kept(app: App) -> set[int]:
    return {tp.partition for tp in app.assignor.assigned_actives() if tp.topic == "heartbeats"}


@pytest.mark.parametrize("addresses", [["127.0.0.1:8080"], ["10.0.0.1:80", "Worker-2:8080", "[::1]:8081"]])
def test_every_member_hears_who_keeps_what_and_where(tmp_path: Path, addresses: list[str]) -> None:
    apps = [member(tmp_path, address) for address in addresses]
    meet(*apps)
    for app, own in zip(apps, addresses, strict=True):
        members = Group(app).members()
        assert members.own == own.lower()
        for other, address in zip(apps, addresses, strict=True):
            expected = None if other is app else address.lower()
            assert {members.keeper("heartbeats", partition) for partition in kept(other)} == {expected}


def test_what_was_agreed_last_counts(tmp_path: Path) -> None:
    first, second = member(tmp_path, "a:1"), member(tmp_path, "b:1")
    group = Group(first)
    assert group.members().keepers == {}
    meet(first, second)
    assert group.members().others("heartbeats") == ("b:1",)
    meet(first)
    assert group.members().others("heartbeats") == ()


def test_of_two_members_with_one_address_nobody_can_say_who_keeps_what(tmp_path: Path) -> None:
    """As on two machines that both listen on their own loopback: then some partitions have no keeper at all."""
    first, second = member(tmp_path, "127.0.0.1:8080"), member(tmp_path, "127.0.0.1:8080")
    meet(first, second)
    assert kept(first) | kept(second) == set(range(PARTITIONS))
    for app in (first, second):
        members = Group(app).members()
        named = {partition for topic, partition in members.keepers if topic == "heartbeats"}
        assert named in (kept(first), kept(second))
        assert members.others("heartbeats") == ()
