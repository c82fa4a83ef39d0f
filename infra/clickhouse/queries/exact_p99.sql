-- How far the table's P99 is from the exact one: each minute of an objective beside the raw events it was made of.
--
-- For an objective of probe results: request counts say no single latencies. Name the same service, endpoint, region and
-- kind as it does. raw_results equals results when nothing is missing; results that came too late for a sealed minute are
-- in raw only, and late counts those that were still added. Where raw rows have expired, exact_p99_ms is NULL.
-- Parameters:
--   slo      String
--   service  String               = ''   empty: any, as in the objective
--   endpoint String               = ''   empty: any, as in the objective
--   region   String               = ''   empty: any, as in the objective
--   kind     String               = ''   empty: any, as in the objective
--   since    DateTime64(3, 'UTC') = -1h
--   until    DateTime64(3, 'UTC') = now
SELECT
    window_start AS minute,
    total AS results,
    raw_results,
    late,
    round(p99_us / 1000, 3) AS table_p99_ms,
    round(exact_us / 1000, 3) AS exact_p99_ms,
    round((p99_us - exact_us) / nullIf(exact_us, 0) * 100, 2) AS off_percent
FROM
(
    SELECT *
    FROM telemetry.slo_windows FINAL
    WHERE slo = {slo:String} AND total > 0
        AND window_start >= {since:DateTime64(3, 'UTC')} AND window_start < {until:DateTime64(3, 'UTC')}
) AS told
LEFT JOIN
(
    -- The nearest rank, as the table counts it: the smallest value that at least 99 % do not exceed.
    SELECT
        toDateTime64(toStartOfMinute(ts), 3, 'UTC') AS minute,
        count() AS raw_results,
        toNullable(arraySort(groupArray(latency_us))[intDiv(raw_results * 99 + 99, 100)]) AS exact_us
    FROM telemetry.probe_results
    WHERE ts >= toStartOfMinute({since:DateTime64(3, 'UTC')})
        AND ts < {until:DateTime64(3, 'UTC')} + INTERVAL 1 MINUTE -- the last minute is told in full
        AND received_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 65 SECOND
        AND ({service:String} = '' OR service = {service:String})
        AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
        AND ({region:String} = '' OR region = {region:String})
        AND ({kind:String} = '' OR kind = {kind:String})
    GROUP BY minute
) AS raw ON told.window_start = raw.minute
ORDER BY told.window_start
