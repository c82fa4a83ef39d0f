-- Request counts by minute and by hour, as probe results are in 0009. A window counts where its last millisecond is.
-- histogram is bucket, total and good, three lists of the same length; buckets as in request_counts.
CREATE TABLE IF NOT EXISTS telemetry.request_1m (
  minute      DateTime('UTC')                                    CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Start of the minute of ts',
  received_on Date                                               CODEC(ZSTD(1)) COMMENT 'Day of received_at, UTC',
  service     LowCardinality(String),
  endpoint    LowCardinality(String),
  region      LowCardinality(String),
  counts      SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)) COMMENT 'Records',
  total       SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)),
  good        SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)),
  sum_us      SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)),
  max_us      SimpleAggregateFunction(max, Int64)                CODEC(T64, ZSTD(1)),
  first_ts    SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  last_ts     SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  histogram   SimpleAggregateFunction(sumMap, Tuple(Array(Int64), Array(Int64), Array(Int64))) CODEC(ZSTD(1)),
  INDEX ix_minute minute TYPE minmax GRANULARITY 1
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(received_on)
ORDER BY (service, endpoint, region, minute, received_on)
TTL received_on + INTERVAL 60 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS telemetry.request_1h (
  hour        DateTime('UTC')                                    CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Start of the hour of ts',
  received_on Date                                               CODEC(ZSTD(1)) COMMENT 'Day of received_at, UTC',
  service     LowCardinality(String),
  endpoint    LowCardinality(String),
  region      LowCardinality(String),
  counts      SimpleAggregateFunction(sum, UInt64)               CODEC(T64, ZSTD(1)) COMMENT 'Records',
  total       SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)),
  good        SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)),
  sum_us      SimpleAggregateFunction(sum, Int64)                CODEC(T64, ZSTD(1)),
  max_us      SimpleAggregateFunction(max, Int64)                CODEC(T64, ZSTD(1)),
  first_ts    SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  last_ts     SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
  histogram   SimpleAggregateFunction(sumMap, Tuple(Array(Int64), Array(Int64), Array(Int64))) CODEC(ZSTD(1)),
  INDEX ix_hour hour TYPE minmax GRANULARITY 1
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(received_on)
ORDER BY (service, endpoint, region, hour, received_on)
TTL received_on + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.request_1m_view TO telemetry.request_1m AS
SELECT
  toStartOfMinute(toDateTime(r.ts, 'UTC')) AS minute, toDate(r.received_at) AS received_on,
  service, endpoint, region,
  count() AS counts, sum(r.total) AS total, sum(r.good) AS good, sum(r.sum_us) AS sum_us, max(r.max_us) AS max_us,
  min(r.ts) AS first_ts, max(r.ts) AS last_ts, sumMap(r.histogram_bucket, r.histogram_total, r.histogram_good) AS histogram
FROM telemetry.request_counts AS r
GROUP BY minute, received_on, service, endpoint, region;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.request_1h_view TO telemetry.request_1h AS
SELECT
  toStartOfHour(r.minute) AS hour, received_on,
  service, endpoint, region,
  sum(r.counts) AS counts, sum(r.total) AS total, sum(r.good) AS good, sum(r.sum_us) AS sum_us, max(r.max_us) AS max_us,
  min(r.first_ts) AS first_ts, max(r.last_ts) AS last_ts, sumMap(r.histogram) AS histogram
FROM telemetry.request_1m AS r
GROUP BY hour, received_on, service, endpoint, region;
