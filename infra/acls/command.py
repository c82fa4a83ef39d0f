"""`fleetbeat topics acl`: creates what is missing, or tells it, as a small table."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum

from infra import InfraError
from infra.acls.cluster import create_acls, read_acls
from infra.acls.plan import (
    PRINCIPALS,
    Acl,
    Difference,
    Grant,
    Operation,
    Resource,
    difference,
    kafka_acls,
    roles,
    wanted,
)
from infra.topics.cluster import Unreachable, connected
from infra.topics.command import Exit, quiet_client, show
from schemas.catalog import Topic, load_catalog
from schemas.kafka import Brokers

_KIND = "User:"


class PrincipalError(ValueError):
    """A --principal that cannot be meant."""


def run_acl(brokers: Brokers, principals: Sequence[str], *, dry_run: bool) -> int:
    """Creates what is missing, or with `dry_run` tells it; returns an Exit. Raises PrincipalError."""
    topics = list(load_catalog().topics.values())
    grants = wanted(topics, principals_by_role(topics, principals))
    try:
        with quiet_client():
            found = asyncio.run(grant_missing(brokers, grants, dry_run=dry_run))
    except InfraError as cause:
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return Exit.UNREACHABLE if isinstance(cause, Unreachable) else Exit.DIFFERS
    show(("principal", "state", "may"), rows(grants, found, created=not dry_run))
    if dry_run:
        for grant in found.missing:
            print(kafka_acls(grant, str(brokers)))
        return Exit.DIFFERS if found.missing else Exit.FINE
    return Exit.FINE


async def grant_missing(brokers: Brokers, grants: Sequence[Grant], *, dry_run: bool) -> Difference:
    """How the cluster differed; unless `dry_run` it has what was missing when this returns. Raises InfraError."""
    async with connected(brokers) as cluster:
        found = difference(grants, await read_acls(cluster.admin))
        if not dry_run:
            await create_acls(cluster.admin, found.missing)
        return found


def principals_by_role(topics: Sequence[Topic], given: Sequence[str]) -> Mapping[str, str]:
    """Those that go without saying, changed and added to by ROLE=NAME. Raises PrincipalError."""
    known = roles(topics)
    found = dict(PRINCIPALS)
    for text in given:
        role, _, name = text.partition("=")
        if role not in known or not name:
            raise PrincipalError(f"--principal: value {text!r}; expected ROLE=NAME, with a role of {', '.join(known)}")
        found[role] = name if ":" in name else _KIND + name
    return found


def rows(grants: Sequence[Grant], found: Difference, *, created: bool) -> list[tuple[str, str, str]]:
    """(principal, state, what) for each thing that is granted, and for what should not be."""
    missing = set(found.missing)
    told = [
        (grant.principal, ("created" if created else "missing") if grant in missing else "fine", _what(grant))
        for grant in grants
    ]
    return told + [(acl.principal, "unasked", _what(acl)) for acl in found.unasked]


def _what(it: Grant | Acl) -> str:
    resource, operation = _word(Resource, it.resource), _word(Operation, it.operation)
    refused = isinstance(it, Acl) and not it.allows
    return f"{'never ' if refused else ''}{operation} {resource} {it.name}"


def _word(names: type[IntEnum], number: int) -> str:
    return names(number).name.lower().replace("_", " ") if number in {*names} else f"number {number} of Kafka's"
