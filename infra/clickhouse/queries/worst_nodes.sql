-- Which nodes see the bad results of a series, the most first, and how they fail. One node at the top: look at that node;
-- all of them alike: look at the service.
-- Parameters:
--   service       String               = ''   only this one; empty: all
--   endpoint      String               = ''   only this one; empty: all
--   region        String               = ''   only this one; empty: all
--   kind          String               = ''   only this one; empty: all
--   latency_us_le UInt64               = 0    the objective's threshold in µs; 0: none
--   since         DateTime64(3, 'UTC') = -1h
--   until         DateTime64(3, 'UTC') = now
--   rows          UInt32               = 10
WITH NOT success OR ({latency_us_le:UInt64} > 0 AND latency_us > {latency_us_le:UInt64}) AS is_bad
SELECT
    node_id,
    count() AS results,
    countIf(is_bad) AS bad,
    round(bad / results * 100, 2) AS bad_percent,
    round(bad / sum(bad) OVER () * 100, 1) AS of_all_bad_percent,
    arrayStringConcat(topKIf(3)(error, is_bad), ', ') AS errors,
    minIf(ts, is_bad) AS first_bad,
    maxIf(ts, is_bad) AS last_bad
FROM telemetry.probe_results
WHERE ts >= {since:DateTime64(3, 'UTC')} AND ts < {until:DateTime64(3, 'UTC')}
    AND received_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 5 SECOND -- ts is never later than this; whole days are left out
    AND ({service:String} = '' OR service = {service:String})
    AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
    AND ({region:String} = '' OR region = {region:String})
    AND ({kind:String} = '' OR kind = {kind:String})
GROUP BY node_id
HAVING bad > 0
ORDER BY bad DESC, bad_percent DESC, node_id
LIMIT {rows:UInt32}
