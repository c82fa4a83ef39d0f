-- kept for three days
ALTER TABLE telemetry.heartbeats MODIFY SETTING materialize_ttl_recalculate_only = 1;
ALTER TABLE telemetry.heartbeats MODIFY TTL toDateTime(received_at) + INTERVAL 3 DAY DELETE;

-- moved to a cold volume first
ALTER TABLE telemetry.probe_results MODIFY SETTING materialize_ttl_recalculate_only = 1;
ALTER TABLE telemetry.probe_results MODIFY SETTING storage_policy = 'tiered';
ALTER TABLE telemetry.probe_results MODIFY TTL toDateTime(received_at) + INTERVAL 7 DAY TO VOLUME 'cold', toDateTime(received_at) + INTERVAL 60 DAY DELETE;

-- on a policy that has the volume already
ALTER TABLE telemetry.slo_windows MODIFY SETTING materialize_ttl_recalculate_only = 1;
ALTER TABLE telemetry.slo_windows MODIFY TTL toDateTime(window_start) + INTERVAL 30 DAY TO VOLUME 'cold', toDateTime(window_start) + INTERVAL 400 DAY DELETE;

-- a rollup
ALTER TABLE telemetry.probe_1m MODIFY SETTING materialize_ttl_recalculate_only = 1;
ALTER TABLE telemetry.probe_1m MODIFY SETTING storage_policy = 'tiered';
ALTER TABLE telemetry.probe_1m MODIFY TTL received_on + INTERVAL 100 DAY TO VOLUME 'cold', received_on + INTERVAL 800 DAY DELETE;
