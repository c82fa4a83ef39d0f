"""`fleetbeat topics apply` and `check`: carry out or tell the plan, as a small table."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Coroutine, Iterator, Sequence
from enum import IntEnum

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra import InfraError
from infra.topics.cluster import Unreachable, connected
from infra.topics.plan import SCHEMAS_TOPIC, Action, Alter, ClusterProfile, Create, Record, Refuse, plan
from schemas.catalog import Topic, load_catalog
from schemas.kafka import Brokers

_COLORS = {"fine": "green", "refused": "red", "unasked": "red"}


class Exit(IntEnum):
    """What a script can tell from the exit status."""

    FINE = 0
    DIFFERS = 1
    UNREACHABLE = 2


def run_apply(brokers: Brokers, partitions: int, local: bool) -> int:  # noqa: FBT001 - named at the call in fleetbeat_commands.py
    """Makes the topics as the contract wants them, or changes nothing and says why; returns an Exit."""
    return _run(apply(brokers, _profile(partitions, local=local)), applied=True)


def run_check(brokers: Brokers, partitions: int, local: bool) -> int:  # noqa: FBT001 - as above
    """Says how the topics differ and changes nothing; returns an Exit."""
    return _run(check(brokers, _profile(partitions, local=local)), applied=False)


async def apply(bootstrap: Brokers, profile: ClusterProfile, topics: Sequence[Topic] | None = None) -> list[Action]:
    """Plans and carries out; when one action is Refuse, nothing was done. Raises InfraError."""
    async with connected(bootstrap) as cluster:
        wanted = _catalog() if topics is None else topics
        actions = plan(wanted, await cluster.state(_names(wanted)), profile)
        if not any(isinstance(action, Refuse) for action in actions):
            await cluster.carry_out(actions, profile.replication)
        return actions


async def check(bootstrap: Brokers, profile: ClusterProfile, topics: Sequence[Topic] | None = None) -> list[Action]:
    """What `apply` would do. Raises InfraError."""
    async with connected(bootstrap) as cluster:
        wanted = _catalog() if topics is None else topics
        return plan(wanted, await cluster.state(_names(wanted)), profile)


def _run(work: Coroutine[None, None, list[Action]], *, applied: bool) -> int:
    try:
        with quiet_client():
            actions = asyncio.run(work)
    except InfraError as cause:
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return Exit.UNREACHABLE if isinstance(cause, Unreachable) else Exit.DIFFERS
    refused = any(isinstance(action, Refuse) for action in actions)
    done = applied and not refused
    rows = [row for name in _names(_catalog()) for row in _rows(name, actions, done=done)]
    show(("topic", "state", "details"), rows)
    if applied and refused:
        print("fleetbeat: refused; nothing was changed", file=sys.stderr)
    return Exit.DIFFERS if refused or (actions and not done) else Exit.FINE


def _rows(name: str, actions: Sequence[Action], *, done: bool) -> Iterator[tuple[str, str, str]]:
    """(topic, state, details) for each thing to say about a topic; one row for a topic that is as it should be."""
    about = [action for action in actions if action.topic == name]
    if not about:
        yield name, "fine", ""
    for action in about:
        match action:
            case Create(wanted=wanted):
                settings = ", ".join(f"{key} {value}" for key, value in sorted(wanted.config.items()))
                yield name, "created" if done else "missing", f"partitions {wanted.partitions}, {settings}"
            case Alter(changes=changes):
                told = ", ".join(f"{change.key} {change.found} → {change.wanted}" for change in changes)
                yield name, "changed" if done else "differs", told
            case Record(versions=versions):
                numbers = ", ".join(f"{version.version} (id {version.id})" for version in versions)
                yield name, "recorded" if done else "not recorded", f"schema versions {numbers}"
            case Refuse(reason=reason):
                yield name, "refused", reason


def show(head: tuple[str, str, str], rows: Sequence[tuple[str, str, str]]) -> None:
    """A table on a terminal, whose second column is a state; one line a row elsewhere."""
    console = Console()
    if not console.is_terminal:
        for name, state, details in rows:
            print(f"{name}: {state}{': ' if details else ''}{details}")
        return
    table = Table(*head, box=None)
    for name, state, details in rows:
        table.add_row(escape(name), f"[{_COLORS.get(state, 'yellow')}]{state}[/]", escape(details))
    console.print(table)


def _profile(partitions: int, *, local: bool) -> ClusterProfile:
    return ClusterProfile.local(partitions) if local else ClusterProfile.cluster(partitions)


def _catalog() -> list[Topic]:
    return list(load_catalog().topics.values())


def _names(topics: Sequence[Topic]) -> list[str]:
    return [SCHEMAS_TOPIC, *(topic.name for topic in topics)]


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """The client logs each failed connection; here that becomes one sentence."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
