-- Where the time goes, by region: median and P99 of each phase of a probe in ms, over the results that got that far.
--
-- A phase that a kind of probe does not have is NULL. got_to_... counts how many results got there at all.
-- Parameters:
--   service  String               = ''   only this one; empty: all
--   endpoint String               = ''   only this one; empty: all
--   kind     String               = ''   only this one; empty: all
--   since    DateTime64(3, 'UTC') = -1h
--   until    DateTime64(3, 'UTC') = now
SELECT
    region,
    count() AS results,
    countIf(NOT success) AS failed,
    round(quantileExact(0.5)(latency_us) / 1000, 1) AS all_p50,
    round(quantileExact(0.99)(latency_us) / 1000, 1) AS all_p99,
    round(quantileExact(0.5)(resolve_us) / 1000, 1) AS resolve_p50,
    round(quantileExact(0.99)(resolve_us) / 1000, 1) AS resolve_p99,
    round(quantileExact(0.5)(connect_us) / 1000, 1) AS connect_p50,
    round(quantileExact(0.99)(connect_us) / 1000, 1) AS connect_p99,
    round(quantileExact(0.5)(tls_us) / 1000, 1) AS tls_p50,
    round(quantileExact(0.99)(tls_us) / 1000, 1) AS tls_p99,
    round(quantileExact(0.5)(first_byte_us) / 1000, 1) AS first_byte_p50,
    round(quantileExact(0.99)(first_byte_us) / 1000, 1) AS first_byte_p99,
    round(quantileExact(0.5)(transfer_us) / 1000, 1) AS transfer_p50,
    round(quantileExact(0.99)(transfer_us) / 1000, 1) AS transfer_p99,
    count(connect_us) AS got_to_connect,
    count(first_byte_us) AS got_to_first_byte
FROM telemetry.probe_results
WHERE ts >= {since:DateTime64(3, 'UTC')} AND ts < {until:DateTime64(3, 'UTC')}
    AND received_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 5 SECOND -- ts is never later than this; whole days are left out
    AND ({service:String} = '' OR service = {service:String})
    AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
    AND ({kind:String} = '' OR kind = {kind:String})
GROUP BY region
ORDER BY all_p99 DESC, region
