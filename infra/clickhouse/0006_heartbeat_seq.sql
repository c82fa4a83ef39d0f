-- The count of a node's heartbeats within a boot, of writers that count them: a gap is loss.
ALTER TABLE telemetry.heartbeats ADD COLUMN IF NOT EXISTS heartbeat_seq Nullable(Int64) CODEC(ZSTD(1)) COMMENT 'Counts heartbeats within the boot, from 0: a gap is loss' AFTER seq;
