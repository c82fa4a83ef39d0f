"""What the worker counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("fleetbeat_rollup_events_total", "Events counted into cells", ["topic"])
LATE = Counter("fleetbeat_rollup_late_events_total", "Events whose slice was sealed when they came", ["topic"])
CLAMPED = Counter("fleetbeat_rollup_clamped_events_total", "Events whose time was not believable", ["topic"])
REJECTED = Counter("fleetbeat_rejected_records_total", "Records sent to dead-letters", ["topic", "reason"])
DOUBTS = Counter(
    "fleetbeat_doubtful_signatures_total",
    "Records that are refused for their signatures, or would be where they are only checked",
    ["topic", "reason"],
)
HOLES = Counter(
    "fleetbeat_missing_offsets_total", "Offsets that retention had deleted before they were read", ["topic"]
)
RECREATED = Counter(
    "fleetbeat_void_commits_total", "Commits of a topic that was deleted and created again under its name", ["topic"]
)
PENDING = Gauge("fleetbeat_rollup_pending_records", "Records read and not yet counted", ["topic"])
OPEN_ROWS = Gauge("fleetbeat_rollup_open_rows", "Rows held for open cells", ["topic"])
SERIES = Gauge("fleetbeat_series", "Series of service, endpoint, region and kind that are kept apart")
SERIES_MAX = Gauge("fleetbeat_series_max", "So many are kept apart at most, of the partitions that this worker keeps")
SERIES_OVERFLOW = Counter(
    "fleetbeat_series_overflow_events_total", "Events of further series: summed as one, and judged like all others"
)
SERIES_LEFT_OUT = Counter(
    "fleetbeat_series_left_out_events_total",
    "Events in no series, in a flood of more than a million within seconds; judged like all others",
)
BATCH_SECONDS = Histogram("fleetbeat_batch_seconds", "Block work of one batch", ["processor"])
FLUSH_SECONDS = Histogram("fleetbeat_flush_seconds", "From taking cells to the broker's acknowledgement")
PARTIAL_BYTES = Counter("fleetbeat_partial_bytes_total", "Bytes written to slo-partials")
PAGES = Counter("fleetbeat_pages_total", "State pages written", ["kind"])
PAGE_BYTES = Counter("fleetbeat_page_bytes_total", "Bytes of state pages written")
SNAPSHOT_SECONDS = Histogram("fleetbeat_snapshot_seconds", "From sealing to the broker's acknowledgement of all pages")
UNREADABLE_PAGES = Counter("fleetbeat_unreadable_pages_total", "Changelog records that were no pages")
CONSUMER_LAG = Gauge("fleetbeat_consumer_lag_records", "Records not yet read", ["topic"])
STALLED = Gauge(
    "fleetbeat_consumer_stalled_seconds",
    "How long the partition that is worst off has been behind without progress",
    ["topic"],
)
FORWARDS = Counter(
    "fleetbeat_view_forwards_total", "Questions passed on to other workers, by what came of them", ["outcome"]
)
FORWARD_SECONDS = Histogram("fleetbeat_view_forward_seconds", "From passing a question on to its answer")
READY = Gauge("fleetbeat_worker_ready", "1 when recovered and not lagging")
EVENT_LOOP_LAG = Gauge("fleetbeat_event_loop_lag_seconds", "How late the last timer of the worker was")
HEARTBEATS = Counter("fleetbeat_heartbeats_total", "Heartbeats counted for their nodes")
HEARTBEATS_IGNORED = Counter("fleetbeat_ignored_heartbeats_total", "Heartbeats not newer than one of the same node")
HEARTBEATS_LOST = Counter("fleetbeat_lost_heartbeats_total", "Gaps in the numbers that heartbeats carry")
HEARTBEATS_PENDING = Gauge("fleetbeat_heartbeats_pending", "Heartbeats read and not yet counted")
NODES = Gauge("fleetbeat_nodes", "Nodes known, by what they are now", ["state"])
NODES_MISSING = Counter("fleetbeat_missing_nodes_total", "Nodes of an earlier worker that no page brought back")
NODES_REFUSED = Counter("fleetbeat_refused_nodes_total", "Heartbeats of new nodes that were not taken", ["reason"])
NODE_RESTARTS = Counter("fleetbeat_node_restarts_total", "New boots of known nodes")
NODE_TRANSITIONS = Counter("fleetbeat_node_transitions_total", "New states of nodes announced", ["state"])
ZONE_TRANSITIONS = Counter("fleetbeat_zone_transitions_total", "New states of zones announced", ["state"])
ZONE_OUTAGES = Gauge("fleetbeat_zone_outages", "Zones in which many nodes fell silent together, now")
NODE_SNAPSHOT_SECONDS = Histogram("fleetbeat_node_snapshot_seconds", "From a snapshot of nodes to its acknowledgement")
OBJECTIVES_FILE_USED = Gauge("fleetbeat_objectives_file_used", "1 when the file's objectives are the newest announced")
OBJECTIVES_RELOADS = Counter("fleetbeat_objectives_reloads_total", "Objectives files looked at again", ["outcome"])
OBJECTIVE_SETS_UNREADABLE = Counter("fleetbeat_unreadable_objective_sets_total", "Records of objectives that are none")
PAST_QUESTIONS = Counter(
    "fleetbeat_past_questions_total",
    "Objectives whose past ClickHouse was asked for, by what came of it",
    ["outcome"],
)
PAST_WAITING = Gauge("fleetbeat_past_waiting_objectives", "Objectives whose past is not known yet")
