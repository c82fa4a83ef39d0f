-- A topic that is deleted and created again has another id, and offsets that mean other records.
ALTER TABLE telemetry.archive_plans ADD COLUMN IF NOT EXISTS topic_id LowCardinality(String) COMMENT 'Of the topic, as Kafka has it, empty where the broker has none' AFTER partition;
