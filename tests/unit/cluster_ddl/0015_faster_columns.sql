ALTER TABLE telemetry.probe_results ON CLUSTER 'fleet'
  MODIFY COLUMN ts          CODEC(T64, LZ4),
  MODIFY COLUMN received_at CODEC(T64, LZ4),
  MODIFY COLUMN node_id     CODEC(LZ4),
  MODIFY COLUMN success     CODEC(LZ4),
  MODIFY COLUMN latency_us  CODEC(T64, LZ4),
  MODIFY COLUMN endpoint    CODEC(LZ4),
  MODIFY COLUMN region      CODEC(LZ4);
ALTER TABLE telemetry.heartbeats ON CLUSTER 'fleet'
  MODIFY COLUMN node_id     CODEC(LZ4);
