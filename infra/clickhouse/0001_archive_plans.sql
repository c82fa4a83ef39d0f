-- What the archive is about to insert, one row a Kafka partition, written before the insert it announces.
-- After a crash only the last plan of a partition can be in doubt; its offsets are then looked up in the table.
CREATE TABLE IF NOT EXISTS telemetry.archive_plans (
  topic         LowCardinality(String),
  partition     UInt16,
  first_offset  Int64,
  last_offset   Int64,
  rows          UInt64,                    -- rows of the table; rejected records make none
  epoch         UInt32,                    -- 0 for the first attempt, one more for each repair
  received_from DateTime64(3, 'UTC'),
  received_to   DateTime64(3, 'UTC'),
  revision      UInt64,                    -- grows with (last_offset, epoch): the greatest is the last plan
  planned_at    DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (topic, partition);
