ALTER TABLE telemetry.heartbeats ON CLUSTER 'fleet'
  ADD COLUMN IF NOT EXISTS spool_age_ms   Nullable(Int64)                  CODEC(T64, ZSTD(1)) COMMENT 'Since the oldest record in the spool was taken, 0 for none' AFTER spooled,
  ADD COLUMN IF NOT EXISTS config_version LowCardinality(Nullable(String))                     COMMENT 'A short hash of the config' AFTER agent_version,
  ADD COLUMN IF NOT EXISTS health_source  LowCardinality(Nullable(String))                     COMMENT 'Where health was read' AFTER health;
