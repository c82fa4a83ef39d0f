-- Which series spent most of the budget in a window: results by service, endpoint, region and kind, the most bad ones first.
--
-- A result is bad when it failed or, with latency_us_le, took longer: as in the objective that you ask about. Nodes are
-- told apart by 64 bits of hash, in half the time: of two million, one is missed once in some ten million questions.
-- Parameters:
--   service       String               = ''   only this one; empty: all
--   endpoint      String               = ''   only this one; empty: all
--   region        String               = ''   only this one; empty: all
--   kind          String               = ''   only this one; empty: all
--   latency_us_le UInt64               = 0    the objective's threshold in µs; 0: none
--   since         DateTime64(3, 'UTC') = -1h
--   until         DateTime64(3, 'UTC') = now
--   rows          UInt32               = 20
WITH NOT success OR ({latency_us_le:UInt64} > 0 AND latency_us > {latency_us_le:UInt64}) AS is_bad
SELECT
    service,
    endpoint,
    region,
    kind,
    count() AS results,
    countIf(is_bad) AS bad,
    round(bad / results * 100, 2) AS bad_percent,
    countIf(NOT success) AS failed,
    uniqExactIf(cityHash64(node_id), is_bad) AS bad_nodes,
    uniqExact(cityHash64(node_id)) AS nodes,
    round(quantileExact(0.99)(latency_us) / 1000, 1) AS p99_ms
FROM telemetry.probe_results
WHERE ts >= {since:DateTime64(3, 'UTC')} AND ts < {until:DateTime64(3, 'UTC')}
    AND received_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 5 SECOND -- ts is never later than this; whole days are left out
    AND ({service:String} = '' OR service = {service:String})
    AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
    AND ({region:String} = '' OR region = {region:String})
    AND ({kind:String} = '' OR kind = {kind:String})
GROUP BY service, endpoint, region, kind
ORDER BY bad DESC, bad_percent DESC, service, endpoint, region, kind
LIMIT {rows:UInt32}
