-- Which nodes went silent together: groups of nodes whose last heartbeats lie close together, the largest first.
--
-- Of every node that became DOWN its last heartbeat before that counts. Two that follow each other within apart_s are
-- of one group. back says how many of the group were UP again later.
-- Parameters:
--   apart_s UInt32               = 15   the longest pause between two nodes of a group, in s
--   least   UInt32               = 2    the smallest group to show
--   since   DateTime64(3, 'UTC') = -1h
--   until   DateTime64(3, 'UTC') = now
WITH
    down AS
    (
        SELECT subject, region, zone, last_seen
        FROM telemetry.node_states FINAL
        WHERE kind = 'NODE' AND state = 'DOWN'
            AND last_seen >= {since:DateTime64(3, 'UTC')} AND last_seen < {until:DateTime64(3, 'UTC')}
    ),
    up AS
    (
        SELECT subject, max(since) AS up_at
        FROM telemetry.node_states FINAL
        WHERE kind = 'NODE' AND state = 'UP' AND since >= {since:DateTime64(3, 'UTC')}
        GROUP BY subject
    ),
    begun AS
    (
        SELECT
            *,
            last_seen > lagInFrame(last_seen, 1, toDateTime64(0, 3, 'UTC')) OVER (
                ORDER BY last_seen, subject ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
            ) + toIntervalSecond({apart_s:UInt32}) AS begins
        FROM down
    ),
    numbered AS
    (
        SELECT *, sum(begins) OVER (ORDER BY last_seen, subject ROWS UNBOUNDED PRECEDING) AS number
        FROM begun
    )
SELECT
    min(last_seen) AS first_silent,
    max(last_seen) AS last_silent,
    uniqExact(subject) AS nodes,
    uniqExactIf(subject, up_at > last_seen) AS back,
    arrayStringConcat(arraySort(groupUniqArray(concat(region, '/', zone))), ', ') AS zones,
    arrayStringConcat(arraySlice(arraySort(groupUniqArray(subject)), 1, 5), ', ') AS first_five
FROM numbered LEFT JOIN up ON numbered.subject = up.subject
GROUP BY number
HAVING nodes >= {least:UInt32}
ORDER BY nodes DESC, first_silent
