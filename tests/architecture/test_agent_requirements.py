"""What `pip install 'fleetbeat[agent]'` brings to a host, by the metadata of what is installed here."""

from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The stream's side: a host has no use for hundreds of megabytes of it.
NOT_FOR_HOSTS = {"aiohttp", "chdb", "clickhouse-connect", "faust-streaming", "mode-streaming", "polars", "pyarrow"}


def brought_by(root: str) -> set[str]:
    """Every distribution that this requirement installs on this platform."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.add(name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                lines = map(Requirement, requires(name) or ())
                waiting += [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
    return found - {"fleetbeat"}


def test_an_agent_brings_nothing_of_the_streams_side() -> None:
    agent = brought_by("fleetbeat[agent]")
    assert {"aiokafka", "fastavro", "httptools", "pydantic"} <= agent
    assert agent & NOT_FOR_HOSTS == set()
    assert len(agent) <= 30


@pytest.mark.parametrize(("extra", "some"), [("streams", {"faust-streaming", "polars"}), ("archive", {"chdb"})])
def test_the_others_do_so_the_walk_would_find_it(extra: str, some: set[str]) -> None:
    assert some <= brought_by(f"fleetbeat[{extra}]") & NOT_FOR_HOSTS
