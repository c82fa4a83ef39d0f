ALTER TABLE telemetry.heartbeats ON CLUSTER 'fleet' ADD COLUMN IF NOT EXISTS heartbeat_seq Nullable(Int64) CODEC(ZSTD(1)) COMMENT 'Counts heartbeats within the boot, from 0: a gap is loss' AFTER seq;
