"""What a decoded row must satisfy beyond its schema; the same for every consumer of a topic."""

from dataclasses import dataclass

import polars as pl

from schemas.buckets import BUCKETS, GAMMA, MAX_LATENCY_US
from schemas.event_time import LAST_MS

MAX_NAME_BYTES = 255
MAX_WINDOW_MS = 10_000
# Of one record: so large that nothing real is more, and so small that no sums over a month leave 64 bits.
MAX_REQUESTS = 100_000_000
MAX_SUM_US = 100_000_000_000_000


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


def _items(field: str) -> pl.Expr:
    """Of all items of a histogram this field, as a list."""
    return pl.col("histogram").list.eval(pl.element().struct.field(field))


def _each(holds: pl.Expr) -> pl.Expr:
    return pl.col("histogram").list.eval(holds).list.all()


def _bucket_of(latency_us: pl.Expr) -> pl.Expr:
    """As `schemas.buckets` has it; for every bound and what is beside it that is tested."""
    above_zero = latency_us.clip(lower_bound=1).log(float(GAMMA)).ceil().cast(pl.Int64) + 1
    return pl.when(latency_us == 0).then(0).otherwise(above_zero)


def _histogram_rules() -> tuple[Rule, ...]:
    """Each counts on those before it: none of these sums can then leave 64 bits."""
    bucket, total, good = (pl.element().struct.field(field) for field in ("bucket", "total", "good"))
    empty, of = pl.col("histogram").list.len() == 0, "histogram"
    highest = pl.col("histogram").list.eval(bucket.filter(total > 0)).list.max()
    mean_up = (pl.col("sum_us") + pl.col("total") - 1) // pl.col("total").clip(lower_bound=1)
    return (
        Rule(of, pl.col("histogram").list.len() <= BUCKETS, f"at most {BUCKETS} buckets"),
        Rule(of, _each(bucket.is_between(0, BUCKETS - 1)), f"buckets 0 to {BUCKETS - 1}"),
        Rule(of, _each(total.is_between(0, MAX_REQUESTS)), f"a total of 0 to {MAX_REQUESTS} in each bucket"),
        Rule(of, _each(good.is_between(0, total)), "in each bucket good from 0 to its total"),
        Rule(of, empty | (_items("total").list.sum() == pl.col("total")), "totals that add up to the record's total"),
        Rule(of, empty | (_items("good").list.sum() == pl.col("good")), "good that add up to the record's good"),
        Rule(
            "max_us",
            empty | (pl.col("total") == 0) | (_bucket_of(pl.col("max_us")) == highest),
            "a latency of the histogram's highest bucket",
        ),
        Rule("sum_us", empty | (pl.col("total") == 0) | (mean_up <= pl.col("max_us")), "at most total times max_us"),
    )


_I64 = (1 << 63) - 1

RULES: dict[str, tuple[Rule, ...]] = {
    "heartbeats": (
        _name("node_id"),
        _name("boot_id"),
        _name("region"),
        _name("zone"),
        _range("boot_ts", 0, LAST_MS),
        _range("seq", 0, _I64),
        _range("interval_ms", 1, 86_400_000),
        _range("heartbeat_seq", 0, _I64),
        _short("agent_version"),
        _range("spool_age_ms", 0, _I64),
        _short("config_version"),
        _short("health_source"),
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
    "request-counts": (
        _name("node_id"),
        _name("service"),
        _name("endpoint"),
        _name("region"),
        _range("seq", 0, _I64),
        _range("window_ms", 1, MAX_WINDOW_MS),
        _range("total", 0, MAX_REQUESTS),
        Rule("good", pl.col("good").is_between(0, pl.col("total")), "0 to total"),
        _range("max_us", 0, MAX_LATENCY_US),
        _range("sum_us", 0, MAX_SUM_US),
        *_histogram_rules(),
    ),
    "slo-partials": (),
    "slo-status": (),
    "objectives": (),
    "node-states": (),
    "dead-letters": (),
    "dead-letter-replays": (),
}

# Topics on which a node speaks for itself: the record's key must be the body's node_id.
KEYED_BY_NODE = frozenset({"heartbeats", "probe-results", "request-counts"})
