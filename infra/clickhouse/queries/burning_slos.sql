-- Which promises burn their budget in a span of time, the fastest first, and which minute was the worst.
--
-- burn_rate 1 spends the budget exactly over the objective's window. Minutes are those of the archive's slo_windows.
-- Parameters:
--   slo   String                 = ''    only this objective; empty: all
--   since DateTime64(3, 'UTC')   = -1h
--   until DateTime64(3, 'UTC')   = now
SELECT
    slo,
    any(service) AS of_service,
    argMax(target, window_start) AS promised,
    sum(total) AS results,
    sum(total - good) AS bad,
    round(sum(good) / sum(total), 5) AS attainment,
    round((1 - sum(good) / sum(total)) / (1 - promised), 2) AS burn_rate,
    argMax(window_start, (total - good) / total) AS worst_minute,
    round(max((total - good) / total) * 100, 1) AS worst_bad_percent
FROM telemetry.slo_windows FINAL
WHERE window_start >= {since:DateTime64(3, 'UTC')} AND window_start < {until:DateTime64(3, 'UTC')} AND total > 0
    AND ({slo:String} = '' OR slo = {slo:String})
GROUP BY slo
ORDER BY burn_rate DESC, slo
