-- One node's last hour, minute by minute: heartbeats and how many are missing, its load, its results, its state.
--
-- A minute in which nothing came is there, with zeros. lost counts the gaps in heartbeat_seq within a boot.
-- Parameters:
--   node  String
--   since DateTime64(3, 'UTC') = -1h
--   until DateTime64(3, 'UTC') = now
SELECT
    minute,
    sum(beats) AS heartbeats,
    sum(gap) AS lost,
    sum(boot) AS boots,
    max(cpu) / 10 AS cpu_percent,
    max(memory) / 10 AS memory_percent,
    max(disk) / 10 AS disk_percent,
    max(waiting) AS spooled,
    sum(result) AS results,
    sum(failure) AS failed,
    round(quantileExactIf(0.99)(latency, result > 0) / 1000, 1) AS p99_ms,
    arrayStringConcat(arraySort(groupUniqArrayIf(reason, reason != '')), ', ') AS errors,
    arrayStringConcat(arrayMap(change -> change.2, arraySort(groupArrayIf((at, change), change != ''))), ', ') AS states
FROM
(
    SELECT
        toStartOfMinute(ts) AS minute, ts AS at, 1 AS beats,
        -- Of the first heartbeat that is seen of a boot nothing is known to be missing before.
        if(previous < 0 OR heartbeat_seq IS NULL, 0, greatest(assumeNotNull(heartbeat_seq) - previous - 1, 0)) AS gap,
        toUInt8(heartbeat_seq = 0) AS boot,
        cpu_permille AS cpu, memory_permille AS memory, disk_permille AS disk, spooled AS waiting,
        0 AS result, 0 AS failure, toUInt64(0) AS latency, '' AS reason, '' AS change
    FROM
    (
        SELECT
            ts, heartbeat_seq, cpu_permille, memory_permille, disk_permille, spooled,
            lagInFrame(ifNull(heartbeat_seq, -1), 1, -1) OVER (
                PARTITION BY boot_id ORDER BY seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
            ) AS previous
        FROM telemetry.heartbeats
        WHERE node_id = {node:String}
            AND ts >= {since:DateTime64(3, 'UTC')} AND ts < {until:DateTime64(3, 'UTC')}
            AND received_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 5 SECOND
    )
    UNION ALL
    SELECT
        toStartOfMinute(ts), ts, 0, 0, 0, NULL, NULL, NULL, 0, 1, toUInt8(NOT success), latency_us, ifNull(error, ''), ''
    FROM telemetry.probe_results
    WHERE node_id = {node:String}
        AND ts >= {since:DateTime64(3, 'UTC')} AND ts < {until:DateTime64(3, 'UTC')}
        AND received_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 5 SECOND
    UNION ALL
    SELECT toStartOfMinute(since), since, 0, 0, 0, NULL, NULL, NULL, 0, 0, 0, 0, '', state
    FROM telemetry.node_states FINAL
    WHERE subject = {node:String} AND kind = 'NODE'
        AND since >= {since:DateTime64(3, 'UTC')} AND since < {until:DateTime64(3, 'UTC')}
)
GROUP BY minute
ORDER BY minute WITH FILL
    FROM toStartOfMinute({since:DateTime64(3, 'UTC')}) TO toDateTime({until:DateTime64(3, 'UTC')}, 'UTC') STEP INTERVAL 1 MINUTE
