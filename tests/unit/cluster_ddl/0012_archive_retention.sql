CREATE TABLE IF NOT EXISTS telemetry.archive_retention ON CLUSTER 'fleet' (
  raw   LowCardinality(String),
  since DateTime64(3, 'UTC'),
  days  UInt32
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY (raw, since);
