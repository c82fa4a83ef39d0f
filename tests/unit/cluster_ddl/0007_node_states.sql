CREATE TABLE IF NOT EXISTS telemetry.node_states ON CLUSTER 'fleet' (
  subject         String                 CODEC(ZSTD(1)) COMMENT 'A node id, or zone:REGION/ZONE',
  kind            LowCardinality(String),
  state           LowCardinality(String),
  previous        LowCardinality(Nullable(String)),
  reason          LowCardinality(String),
  since           DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)) COMMENT 'When the state began, by append times',
  last_seen       DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)),
  region          LowCardinality(String),
  zone            LowCardinality(String),
  boot_ts_ms      Int64                  CODEC(DoubleDelta, ZSTD(1)) COMMENT 'As the node said it',
  interval_ms     UInt32                 CODEC(T64, ZSTD(1)),
  nodes           Int64                  CODEC(T64, ZSTD(1)) COMMENT '1, or how many nodes of the zone are missing',
  nodes_known     Int64                  CODEC(T64, ZSTD(1)),
  partition       Int32                  CODEC(ZSTD(1)) COMMENT 'Of heartbeats',
  applied_offset  Int64                  CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Heartbeats up to here are behind it',
  received_at     DateTime64(3, 'UTC')   CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Append time of this record',
  kafka_partition UInt16                 CODEC(ZSTD(1)),
  kafka_offset    Int64                  CODEC(DoubleDelta, ZSTD(1))
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(since)
ORDER BY (subject, since, state)
TTL toDateTime(since) + INTERVAL 400 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1;
