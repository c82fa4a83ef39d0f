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
SELECT
    result.1 AS ts,
    round(({alert_at:DateTime64(3, 'UTC')} - ts), 1) AS before_alert_s,
    result.2 AS node_id,
    result.4 AS service,
    result.5 AS endpoint,
    result.6 AS region,
    result.7 AS kind,
    result.8 AS error,
    result.9 AS status_code,
    round(result.10 / 1000, 1) AS latency_ms,
    result.11 AS trace_id
FROM
(
    -- The epoch when no minute was quiet.
    SELECT minute, firsts, max(if(quiet, minute + INTERVAL 1 MINUTE, toDateTime(0, 'UTC'))) OVER () AS onset
    FROM
    (
        -- One pass over the rows: each minute keeps the few of its bad results that can be shown.
        SELECT
            toStartOfMinute(ts) AS minute,
            countIf(bad) * 100 <= count() * {quiet_percent:Float64}
                AND minute + INTERVAL 1 MINUTE <= {alert_at:DateTime64(3, 'UTC')} AS quiet,
            groupArraySortedIf({rows:UInt32})(
                (ts, node_id, seq, service, endpoint, region, kind, error, status_code, latency_us, trace_id), bad
            ) AS firsts
        FROM
        (
            SELECT *, NOT success OR ({latency_us_le:UInt64} > 0 AND latency_us > {latency_us_le:UInt64}) AS bad
            FROM telemetry.probe_results
            WHERE ts >= {alert_at:DateTime64(3, 'UTC')} - toIntervalSecond({lookback_s:UInt32})
                AND ts < {alert_at:DateTime64(3, 'UTC')}
                AND received_at >= {alert_at:DateTime64(3, 'UTC')} - toIntervalSecond({lookback_s:UInt32} + 5)
                AND ({service:String} = '' OR service = {service:String})
                AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
                AND ({region:String} = '' OR region = {region:String})
                AND ({kind:String} = '' OR kind = {kind:String})
        )
        GROUP BY minute
    )
)
ARRAY JOIN firsts AS result
WHERE minute >= onset
ORDER BY ts, node_id, result.3
LIMIT {rows:UInt32}
