"""Random records, drawn from the schemas themselves and held within the rules."""

from typing import Any

from hypothesis import strategies as st

from schemas.buckets import bucket_of
from schemas.catalog import load_catalog
from schemas.codec import from_fields
from schemas.records import Record

TOPICS = tuple(topic.name for topic in load_catalog().topics.values() if topic.versions)
NAMES = st.text(min_size=1, max_size=60)  # at most 240 bytes
SEQ = st.integers(0, (1 << 63) - 1)
_INT = st.integers(-(1 << 31), (1 << 31) - 1)
_LONG = st.integers(-(1 << 63), (1 << 63) - 1)
_WITHIN_RULES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "heartbeats": {
        **dict.fromkeys(("node_id", "boot_id", "region", "zone", "agent_version"), NAMES),
        "boot_ts": st.integers(0, 253_402_300_799_999),
        "seq": SEQ,
        "interval_ms": st.integers(1, 86_400_000),
        "heartbeat_seq": st.none() | SEQ,
        "spool_age_ms": st.none() | SEQ,
    },
    "probe-results": {
        **dict.fromkeys(("node_id", "service", "endpoint", "region", "kind"), NAMES),
        "latency_us": st.integers(0, 86_400_000_000),
        "seq": SEQ,
    },
    "request-counts": {
        **dict.fromkeys(("node_id", "service", "endpoint", "region"), NAMES),
        "window_ms": st.integers(1, 10_000),
        "seq": SEQ,
    },
}


@st.composite
def _counts(draw: st.DrawFn) -> dict[str, Any]:
    """Totals, sums and a histogram that agree with each other."""
    latencies = draw(st.lists(st.tuples(st.integers(0, 86_400_000_000), st.booleans()), max_size=6))
    items: dict[int, dict[str, int]] = {}
    for latency, good in latencies:
        item = items.setdefault(bucket_of(latency), {"bucket": bucket_of(latency), "total": 0, "good": 0})
        item["total"] += 1
        item["good"] += good
    return {
        "total": len(latencies),
        "good": sum(good for _, good in latencies),
        "sum_us": sum(latency for latency, _ in latencies),
        "max_us": max((latency for latency, _ in latencies), default=0),
        "histogram": draw(st.permutations(list(items.values()))) if draw(st.booleans()) else [],
    }


def records(topic: str) -> st.SearchStrategy[Record]:
    """Records of a topic that every consumer must accept."""
    own = _WITHIN_RULES.get(topic, {})
    fields = load_catalog().topic(topic).latest.parsed["fields"]
    drawn = {field["name"]: own.get(field["name"], _of(field["type"])) for field in fields}
    values = st.fixed_dictionaries(drawn)
    if topic == "request-counts":
        values = st.builds(lambda drawn, counts: {**drawn, **counts}, values, _counts())
    return values.map(lambda values: from_fields(topic, values))


def _of(schema: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - an Avro schema is any JSON
    if isinstance(schema, list):
        return st.one_of([_of(branch) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    match kind:
        case "record":
            return st.fixed_dictionaries({field["name"]: _of(field["type"]) for field in schema["fields"]})
        case "array":
            return st.lists(_of(schema["items"]), max_size=3)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case dict():
            return _of(kind)
        case _:
            return _PRIMITIVES[kind]


_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=20),
    "boolean": st.booleans(),
    "int": _INT,
    "long": _LONG,
    "double": st.floats(allow_nan=False),
}
