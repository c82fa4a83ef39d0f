-- How it began: the first bad results of a series before an alert.
--
-- Goes back from the alert to the last whole minute in which at most quiet_percent of the results were bad; what was bad
-- after that minute is shown, the oldest first, each with its trace id. Without such a minute it begins at the lookback.
-- Parameters:
--   alert_at      DateTime64(3, 'UTC') = now
--   lookback_s    UInt32               = 3600
--   service       String               = ''   only this one; empty: all
--   endpoint      String               = ''   only this one; empty: all
--   region        String               = ''   only this one; empty: all
--   kind          String               = ''   only this one; empty: all
--   latency_us_le UInt64               = 0    the objective's threshold in µs; 0: none
--   quiet_percent Float64              = 1    what share of bad results is usual, in percent
--   rows          UInt32               = 5
WITH
    judged AS
    (
        SELECT ts, node_id, seq, service, endpoint, region, kind, error, status_code, latency_us, trace_id,
            NOT success OR ({latency_us_le:UInt64} > 0 AND latency_us > {latency_us_le:UInt64}) AS bad
        FROM telemetry.probe_results
        WHERE ts >= {alert_at:DateTime64(3, 'UTC')} - toIntervalSecond({lookback_s:UInt32})
            AND ts < {alert_at:DateTime64(3, 'UTC')}
            AND received_at >= {alert_at:DateTime64(3, 'UTC')} - toIntervalSecond({lookback_s:UInt32} + 5)
            AND ({service:String} = '' OR service = {service:String})
            AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
            AND ({region:String} = '' OR region = {region:String})
            AND ({kind:String} = '' OR kind = {kind:String})
    ),
    -- The epoch when no minute was quiet.
    (
        SELECT max(minute) + INTERVAL 1 MINUTE
        FROM
        (
            SELECT toStartOfMinute(ts) AS minute
            FROM judged
            GROUP BY minute
            HAVING countIf(bad) * 100 <= count() * {quiet_percent:Float64}
                AND minute + INTERVAL 1 MINUTE <= {alert_at:DateTime64(3, 'UTC')}
        )
    ) AS onset
SELECT
    ts,
    round(({alert_at:DateTime64(3, 'UTC')} - ts), 1) AS before_alert_s,
    node_id,
    service,
    endpoint,
    region,
    kind,
    error,
    status_code,
    round(latency_us / 1000, 1) AS latency_ms,
    trace_id
FROM judged
WHERE bad AND ts >= onset
ORDER BY ts, node_id, seq
LIMIT {rows:UInt32}
