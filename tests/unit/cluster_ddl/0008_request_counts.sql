CREATE TABLE IF NOT EXISTS telemetry.request_counts ON CLUSTER 'fleet' (
  ts               DateTime64(3, 'UTC')             CODEC(DoubleDelta, ZSTD(1)) COMMENT 'The last millisecond of the window, where its requests count: reported, held within received_at - 35 d and + 5 s',
  received_at      DateTime64(3, 'UTC')             CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Append time at the broker',
  reported_ts_ms   Nullable(Int64)                  CODEC(ZSTD(1))              COMMENT 'The last millisecond that the service said, where ts differs from it',
  began_ms         Int64                            CODEC(DoubleDelta, ZSTD(1)) COMMENT 'When the window began, as the service said it',
  window_ms        Int32                            CODEC(T64, ZSTD(1)),
  node_id          String                           CODEC(ZSTD(1)),
  boot_id          String                           CODEC(ZSTD(1)),
  seq              Int64                            CODEC(DoubleDelta, ZSTD(1)),
  service          LowCardinality(String),
  endpoint         LowCardinality(String),
  region           LowCardinality(String),
  total            Int64                            CODEC(T64, ZSTD(1)),
  good             Int64                            CODEC(T64, ZSTD(1)),
  sum_us           Int64                            CODEC(T64, ZSTD(1)),
  max_us           Int64                            CODEC(T64, ZSTD(1)),
  histogram_bucket Array(Int64)                     CODEC(ZSTD(1))              COMMENT 'Bucket b > 0 holds latencies up to floor(1.02 ^ (b - 1)) us, bucket 0 those of 0',
  histogram_total  Array(Int64)                     CODEC(ZSTD(1)),
  histogram_good   Array(Int64)                     CODEC(ZSTD(1)),
  labels           Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  kafka_partition  UInt16                           CODEC(ZSTD(1)),
  kafka_offset     Int64                            CODEC(DoubleDelta, ZSTD(1)),
  INDEX ix_ts ts TYPE minmax GRANULARITY 1,
  INDEX ix_offset kafka_offset TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(received_at)
ORDER BY (service, endpoint, toStartOfHour(ts), node_id, ts)
TTL toDateTime(received_at) + INTERVAL 14 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1;
