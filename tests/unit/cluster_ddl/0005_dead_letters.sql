CREATE TABLE IF NOT EXISTS telemetry.dead_letters ON CLUSTER 'fleet' (
  topic           LowCardinality(String),
  partition       Int32                    CODEC(ZSTD(1)),
  offset          Int64                    CODEC(DoubleDelta, ZSTD(1)),
  reason          LowCardinality(String),
  detail          String                   CODEC(ZSTD(1)),
  append_ts       DateTime64(3, 'UTC')     CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Append time of the original',
  detected_by     LowCardinality(String),
  key             Nullable(String)         CODEC(ZSTD(1)),
  value           Nullable(String)         CODEC(ZSTD(3)),
  value_bytes     Int64                    CODEC(T64, ZSTD(1)),
  received_at     DateTime64(3, 'UTC')     CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Append time of the dead letter',
  kafka_partition UInt16                   CODEC(ZSTD(1)),
  kafka_offset    Int64                    CODEC(DoubleDelta, ZSTD(1))
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY (topic, partition, offset)
TTL toDateTime(received_at) + INTERVAL 30 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
