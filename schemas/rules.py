"""What a decoded row must satisfy beyond its schema; the same for every consumer of a topic."""

from dataclasses import dataclass

import polars as pl

MAX_NAME_BYTES = 255
MAX_LATENCY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds` is a boolean expression on `column`; `expected` completes the sentence in a dead letter."""

    column: str
    holds: pl.Expr
    expected: str


def _name(column: str) -> Rule:
    return Rule(column, pl.col(column).str.len_bytes().is_between(1, MAX_NAME_BYTES), f"1 to {MAX_NAME_BYTES} bytes")


def _short(column: str) -> Rule:
    return Rule(column, pl.col(column).str.len_bytes() <= MAX_NAME_BYTES, f"at most {MAX_NAME_BYTES} bytes")


def _range(column: str, low: int, high: int) -> Rule:
    return Rule(column, pl.col(column).is_between(low, high), f"{low} to {high}")


_I64 = (1 << 63) - 1
_LAST_MS = 253_402_300_799_999  # the end of the year 9999

RULES: dict[str, tuple[Rule, ...]] = {
    "heartbeats": (
        _name("node_id"),
        _name("boot_id"),
        _name("region"),
        _name("zone"),
        _range("boot_ts", 0, _LAST_MS),
        _range("seq", 0, _I64),
        _range("interval_ms", 1, 86_400_000),
        _range("heartbeat_seq", 0, _I64),
        _short("agent_version"),
    ),
    "probe-results": (
        _name("node_id"),
        _name("service"),
        _name("endpoint"),
        _name("region"),
        _name("kind"),
        _range("latency_us", 0, MAX_LATENCY_US),
        _range("seq", 0, _I64),
    ),
    "slo-partials": (),
    "slo-status": (),
    "objectives": (),
    "node-states": (),
    "dead-letters": (),
    "dead-letter-replays": (),
}

# Topics on which a node speaks for itself: the record's key must be the body's node_id.
KEYED_BY_NODE = frozenset({"heartbeats", "probe-results"})
