CREATE TABLE IF NOT EXISTS telemetry.slo_windows ON CLUSTER 'fleet' (
  slo               LowCardinality(String),
  service           LowCardinality(String),
  objective_version LowCardinality(String),
  target            Float64                CODEC(ZSTD(1)),
  window_s          UInt32                 CODEC(T64, ZSTD(1)),
  window_start      DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)),
  window_end        DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)),
  final             Bool                   CODEC(ZSTD(1)),
  total             Int64                  CODEC(T64, ZSTD(1)),
  good              Int64                  CODEC(T64, ZSTD(1)),
  late              Int64                  CODEC(T64, ZSTD(1)),
  sum_us            Int64                  CODEC(T64, ZSTD(1)),
  max_us            Int64                  CODEC(T64, ZSTD(1)),
  p50_us            Int64                  CODEC(T64, ZSTD(1)),
  p90_us            Int64                  CODEC(T64, ZSTD(1)),
  p99_us            Int64                  CODEC(T64, ZSTD(1)),
  reported_at       DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)) COMMENT 'When the worker wrote the snapshot',
  complete_to       DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)),
  revision          UInt64                 CODEC(DoubleDelta, ZSTD(1)) COMMENT 'applied_offset of the snapshot',
  received_at       DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)),
  kafka_partition   UInt16                 CODEC(ZSTD(1)),
  kafka_offset      Int64                  CODEC(DoubleDelta, ZSTD(1)),
  attainment        Nullable(Float64) ALIAS if(total = 0, NULL, good / total)
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', revision)
PARTITION BY toYYYYMM(window_start)
ORDER BY (slo, objective_version, window_s, window_start)
TTL toDateTime(window_start) + INTERVAL 400 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1;
