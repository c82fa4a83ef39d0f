CREATE OR REPLACE TABLE telemetry.archive_plans_all ON CLUSTER 'fleet' AS telemetry.archive_plans ENGINE = Distributed('fleet', 'telemetry', 'archive_plans');
CREATE OR REPLACE TABLE telemetry.probe_results_all ON CLUSTER 'fleet' AS telemetry.probe_results ENGINE = Distributed('fleet', 'telemetry', 'probe_results');
CREATE OR REPLACE TABLE telemetry.heartbeats_all ON CLUSTER 'fleet' AS telemetry.heartbeats ENGINE = Distributed('fleet', 'telemetry', 'heartbeats');
CREATE OR REPLACE TABLE telemetry.slo_windows_all ON CLUSTER 'fleet' AS telemetry.slo_windows ENGINE = Distributed('fleet', 'telemetry', 'slo_windows');
CREATE OR REPLACE TABLE telemetry.dead_letters_all ON CLUSTER 'fleet' AS telemetry.dead_letters ENGINE = Distributed('fleet', 'telemetry', 'dead_letters');
CREATE OR REPLACE TABLE telemetry.node_states_all ON CLUSTER 'fleet' AS telemetry.node_states ENGINE = Distributed('fleet', 'telemetry', 'node_states');
CREATE OR REPLACE TABLE telemetry.request_counts_all ON CLUSTER 'fleet' AS telemetry.request_counts ENGINE = Distributed('fleet', 'telemetry', 'request_counts');
