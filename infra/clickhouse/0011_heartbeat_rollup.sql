-- Heartbeats by minute, as probe results are in 0009: how a zone did, not a node, so that two million nodes are a few rows.
CREATE TABLE IF NOT EXISTS telemetry.heartbeat_1m (
  minute        DateTime('UTC')                                    CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Start of the minute of ts',
  received_on   Date                                               CODEC(ZSTD(1)) COMMENT 'Day of received_at, UTC',
  region        LowCardinality(String),
  zone          LowCardinality(String),
  agent_version LowCardinality(String),
  state         LowCardinality(String),
  beats         SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  cpu_beats     SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)) COMMENT 'Those that say cpu_permille',
  cpu_sum       SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)) COMMENT 'Of cpu_permille',
  cpu_max       SimpleAggregateFunction(max, Nullable(Int32))      CODEC(T64, ZSTD(1)),
  memory_max    SimpleAggregateFunction(max, Nullable(Int32))      CODEC(T64, ZSTD(1)),
  disk_max      SimpleAggregateFunction(max, Nullable(Int32))      CODEC(T64, ZSTD(1)),
  spooled_max   SimpleAggregateFunction(max, Int64)                CODEC(T64, ZSTD(1)),
  first_ts      SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  last_ts       SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  INDEX ix_minute minute TYPE minmax GRANULARITY 1
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(received_on)
ORDER BY (region, zone, agent_version, state, minute, received_on)
TTL received_on + INTERVAL 60 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.heartbeat_1m_view TO telemetry.heartbeat_1m AS
SELECT
  toStartOfMinute(toDateTime(r.ts, 'UTC')) AS minute, toDate(r.received_at) AS received_on,
  region, zone, agent_version, state,
  count() AS beats, count(r.cpu_permille) AS cpu_beats, sum(ifNull(r.cpu_permille, 0)) AS cpu_sum,
  max(r.cpu_permille) AS cpu_max, max(r.memory_permille) AS memory_max, max(r.disk_permille) AS disk_max,
  max(r.spooled) AS spooled_max, min(r.ts) AS first_ts, max(r.ts) AS last_ts
FROM telemetry.heartbeats AS r
GROUP BY minute, received_on, region, zone, agent_version, state;
