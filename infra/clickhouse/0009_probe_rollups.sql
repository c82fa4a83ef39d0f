-- Probe results by minute and by hour, filled by views. Ask for sum(total), max(max_us),
-- quantilesBFloat16Merge(0.5, 0.9, 0.99)(latency), and always GROUP BY: a key may have several rows until parts are merged.
-- received_on is part of every key, so that a minute can be made again from the raw rows of one day of arrival: either
-- all of them are still there, or what a minute holds of that day is left alone.
CREATE TABLE IF NOT EXISTS telemetry.probe_1m (
  minute      DateTime('UTC')                                    CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Start of the minute of ts',
  received_on Date                                               CODEC(ZSTD(1)) COMMENT 'Day of received_at, UTC',
  service     LowCardinality(String),
  endpoint    LowCardinality(String),
  region      LowCardinality(String),
  probe       LowCardinality(String),
  kind        LowCardinality(String),
  total       SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  good        SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  sum_us      SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  max_us      SimpleAggregateFunction(max, UInt64)               CODEC(T64, ZSTD(1)),
  first_ts    SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  last_ts     SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  latency     AggregateFunction(quantilesBFloat16(0.5, 0.9, 0.99), UInt64) CODEC(ZSTD(1)),
  INDEX ix_minute minute TYPE minmax GRANULARITY 1
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(received_on)
ORDER BY (service, endpoint, probe, kind, region, minute, received_on)
TTL received_on + INTERVAL 60 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS telemetry.probe_1h (
  hour        DateTime('UTC')                                    CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Start of the hour of ts',
  received_on Date                                               CODEC(ZSTD(1)) COMMENT 'Day of received_at, UTC',
  service     LowCardinality(String),
  endpoint    LowCardinality(String),
  region      LowCardinality(String),
  probe       LowCardinality(String),
  kind        LowCardinality(String),
  total       SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  good        SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  sum_us      SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)),
  max_us      SimpleAggregateFunction(max, UInt64)               CODEC(T64, ZSTD(1)),
  first_ts    SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  last_ts     SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  latency     AggregateFunction(quantilesBFloat16(0.5, 0.9, 0.99), UInt64) CODEC(ZSTD(1)),
  INDEX ix_hour hour TYPE minmax GRANULARITY 1
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(received_on)
ORDER BY (service, endpoint, probe, kind, region, hour, received_on)
TTL received_on + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.probe_1m_view TO telemetry.probe_1m AS
SELECT
  toStartOfMinute(toDateTime(r.ts, 'UTC')) AS minute, toDate(r.received_at) AS received_on,
  service, endpoint, region, probe, kind,
  count() AS total, countIf(r.success) AS good, sum(r.latency_us) AS sum_us, max(r.latency_us) AS max_us,
  min(r.ts) AS first_ts, max(r.ts) AS last_ts, quantilesBFloat16State(0.5, 0.9, 0.99)(r.latency_us) AS latency
FROM telemetry.probe_results AS r
GROUP BY minute, received_on, service, endpoint, region, probe, kind;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.probe_1h_view TO telemetry.probe_1h AS
SELECT
  toStartOfHour(r.minute) AS hour, received_on,
  service, endpoint, region, probe, kind,
  sum(r.total) AS total, sum(r.good) AS good, sum(r.sum_us) AS sum_us, max(r.max_us) AS max_us,
  min(r.first_ts) AS first_ts, max(r.last_ts) AS last_ts,
  quantilesBFloat16MergeState(0.5, 0.9, 0.99)(r.latency) AS latency
FROM telemetry.probe_1m AS r
GROUP BY hour, received_on, service, endpoint, region, probe, kind;
