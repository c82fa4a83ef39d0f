-- How long raw rows were kept, and since when: says of which days all rows are still there. Without a row: 14 days.
CREATE TABLE IF NOT EXISTS telemetry.archive_retention (
  raw   LowCardinality(String),
  since DateTime64(3, 'UTC'),
  days  UInt32
) ENGINE = ReplacingMergeTree
ORDER BY (raw, since);
