CREATE TABLE IF NOT EXISTS telemetry.archive_plans ON CLUSTER 'fleet' (
  topic         LowCardinality(String),
  partition     UInt16,
  first_offset  Int64,
  last_offset   Int64,
  rows          UInt64,
  epoch         UInt32,
  received_from DateTime64(3, 'UTC'),
  received_to   DateTime64(3, 'UTC'),
  revision      UInt64,
  planned_at    DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', revision)
ORDER BY (topic, partition);
