-- The whole record of a traced event, and where it lies in Kafka. A trace id has 32 hex digits.
-- Parameters:
--   trace_id String
SELECT *
FROM telemetry.probe_results
WHERE trace_id = lower({trace_id:String})
ORDER BY ts, kafka_partition, kafka_offset
