CREATE TABLE IF NOT EXISTS telemetry.probe_results ON CLUSTER 'fleet' (
  ts              DateTime64(3, 'UTC')             CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Event time as windows count it: reported, held within received_at - 35 d and + 5 s',
  received_at     DateTime64(3, 'UTC')             CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Append time at the broker',
  reported_ts_ms  Nullable(Int64)                  CODEC(ZSTD(1))              COMMENT 'What the node said, where ts differs from it',
  node_id         String                           CODEC(ZSTD(1)),
  boot_id         String                           CODEC(ZSTD(1)),
  seq             Int64                            CODEC(DoubleDelta, ZSTD(1)),
  probe           LowCardinality(String),
  kind            LowCardinality(String),
  service         LowCardinality(String),
  endpoint        LowCardinality(String),
  region          LowCardinality(String),
  success         Bool                             CODEC(ZSTD(1)),
  latency_us      UInt64                           CODEC(T64, ZSTD(1)),
  resolve_us      Nullable(Int64)                  CODEC(T64, ZSTD(1)),
  connect_us      Nullable(Int64)                  CODEC(T64, ZSTD(1)),
  tls_us          Nullable(Int64)                  CODEC(T64, ZSTD(1)),
  first_byte_us   Nullable(Int64)                  CODEC(T64, ZSTD(1)),
  transfer_us     Nullable(Int64)                  CODEC(T64, ZSTD(1)),
  status_code     Nullable(Int32)                  CODEC(T64, ZSTD(1)),
  error           LowCardinality(Nullable(String)),
  impact          LowCardinality(Nullable(String)),
  trace_id        Nullable(String)                 CODEC(ZSTD(1)),
  labels          Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  kafka_partition UInt16                           CODEC(ZSTD(1)),
  kafka_offset    Int64                            CODEC(DoubleDelta, ZSTD(1)),
  INDEX ix_ts ts TYPE minmax GRANULARITY 1,
  INDEX ix_offset kafka_offset TYPE minmax GRANULARITY 1,
  INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_label_keys mapKeys(labels) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX ix_label_values mapValues(labels) TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(received_at)
ORDER BY (service, probe, toStartOfHour(ts), node_id, ts)
TTL toDateTime(received_at) + INTERVAL 14 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1;
