ALTER TABLE telemetry.heartbeats ON CLUSTER 'fleet'
  MODIFY COLUMN ts            CODEC(Delta(8), ZSTD(1)),
  MODIFY COLUMN received_at   CODEC(Delta(8), ZSTD(1)),
  MODIFY COLUMN seq           CODEC(Delta(8), ZSTD(1)),
  MODIFY COLUMN heartbeat_seq CODEC(DoubleDelta, ZSTD(1));
ALTER TABLE telemetry.probe_results ON CLUSTER 'fleet'
  MODIFY COLUMN ts           CODEC(T64, ZSTD(1)),
  MODIFY COLUMN received_at  CODEC(T64, ZSTD(1)),
  MODIFY COLUMN seq          CODEC(Delta(8), ZSTD(1)),
  MODIFY COLUMN endpoint     CODEC(ZSTD(1)),
  MODIFY COLUMN region       CODEC(ZSTD(1)),
  MODIFY COLUMN kafka_offset CODEC(Delta(8), ZSTD(1));
