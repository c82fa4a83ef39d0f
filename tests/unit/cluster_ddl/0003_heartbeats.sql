CREATE TABLE IF NOT EXISTS telemetry.heartbeats ON CLUSTER 'fleet' (
  ts              DateTime64(3, 'UTC')             CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Event time: reported, held within received_at - 35 d and + 5 s',
  received_at     DateTime64(3, 'UTC')             CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Append time at the broker',
  reported_ts_ms  Nullable(Int64)                  CODEC(ZSTD(1))              COMMENT 'What the node said, where ts differs from it',
  node_id         String                           CODEC(ZSTD(1)),
  boot_id         String                           CODEC(ZSTD(1)),
  boot_ts_ms      Int64                            CODEC(DoubleDelta, ZSTD(1)) COMMENT 'As the node said it',
  seq             Int64                            CODEC(DoubleDelta, ZSTD(1)),
  interval_ms     UInt32                           CODEC(T64, ZSTD(1)),
  state           LowCardinality(String),
  region          LowCardinality(String),
  zone            LowCardinality(String),
  agent_version   LowCardinality(String),
  health          Nullable(Int32)                  CODEC(T64, ZSTD(1)),
  cpu_permille    Nullable(Int32)                  CODEC(T64, ZSTD(1)),
  memory_permille Nullable(Int32)                  CODEC(T64, ZSTD(1)),
  disk_permille   Nullable(Int32)                  CODEC(T64, ZSTD(1)),
  spooled         Int64                            CODEC(T64, ZSTD(1)),
  dropped         Int64                            CODEC(DoubleDelta, ZSTD(1)),
  labels          Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  kafka_partition UInt16                           CODEC(ZSTD(1)),
  kafka_offset    Int64                            CODEC(Delta(8), ZSTD(1)),
  INDEX ix_ts ts TYPE minmax GRANULARITY 1,
  INDEX ix_offset kafka_offset TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(received_at)
ORDER BY (node_id, ts)
TTL toDateTime(received_at) + INTERVAL 14 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1;
