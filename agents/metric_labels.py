"""Which labels of probes may stand on /metrics: those that the config lists, out of those that have few values."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# The labels of every series of a probe, and what Prometheus or a family of ours already calls so.
WHICH = ("probe", "kind", "service")
_TAKEN = frozenset({*WHICH, "phase", "part", "source", "job", "le", "quantile"})
# What there is no end to: nodes, addresses, people, single requests.
_NODES = frozenset({"boot_id", "container_id", "host", "host_name", "hostname", "node", "node_id", "node_name", "pod"})
_ADDRESSES = frozenset(
    {"addr", "address", "fqdn", "instance", "ip", "ip_address", "path", "query", "target", "uri", "url"}
)
_PEOPLE = frozenset({"email", "user", "user_agent", "user_id", "username"})
_REQUESTS = frozenset({"id", "request", "request_id", "session", "session_id", "span_id", "trace_id", "uuid"})
MAX_LABELS = 8
MAX_PROBES = 1_000


def _check(name: str) -> str:
    if not re.fullmatch(r"(?!__)[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "expected a name for Prometheus: a letter or _, then letters, digits and _, and no __ in front"
        )
    if name in _TAKEN:
        raise ValueError(f"is a label already; expected none of {', '.join(sorted(_TAKEN))}")
    if name.lower() in _NODES | _ADDRESSES | _PEOPLE | _REQUESTS:
        raise ValueError("has no end of values, and each would be a series; expected a label with few, such as team")
    return name


def _check_each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} more than once; expected each label once")
    return names


MetricLabels = Annotated[
    tuple[Annotated[str, AfterValidator(_check)], ...],
    Field(max_length=MAX_LABELS),
    AfterValidator(_check_each_once),
]
MaxProbes = Annotated[int, Field(ge=0, le=100_000)]
