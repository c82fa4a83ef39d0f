"""What the worker counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("fleetbeat_rollup_events_total", "Events counted into cells", ["topic"])
LATE = Counter("fleetbeat_rollup_late_events_total", "Events whose slice was sealed when they came", ["topic"])
CLAMPED = Counter("fleetbeat_rollup_clamped_events_total", "Events whose time was not believable", ["topic"])
REJECTED = Counter("fleetbeat_rejected_records_total", "Records sent to dead-letters", ["topic", "reason"])
HOLES = Counter(
    "fleetbeat_missing_offsets_total", "Offsets that retention had deleted before they were read", ["topic"]
)
PENDING = Gauge("fleetbeat_rollup_pending_records", "Records read and not yet counted")
OPEN_ROWS = Gauge("fleetbeat_rollup_open_rows", "Rows held for open cells")
BATCH_SECONDS = Histogram("fleetbeat_batch_seconds", "Block work of one batch", ["processor"])
FLUSH_SECONDS = Histogram("fleetbeat_flush_seconds", "From taking cells to the broker's acknowledgement")
PARTIAL_BYTES = Counter("fleetbeat_partial_bytes_total", "Bytes written to slo-partials")
PAGES = Counter("fleetbeat_pages_total", "State pages written", ["kind"])
PAGE_BYTES = Counter("fleetbeat_page_bytes_total", "Bytes of state pages written")
SNAPSHOT_SECONDS = Histogram("fleetbeat_snapshot_seconds", "From sealing to the broker's acknowledgement of all pages")
UNREADABLE_PAGES = Counter("fleetbeat_unreadable_pages_total", "Changelog records that were no pages")
CONSUMER_LAG = Gauge("fleetbeat_consumer_lag_records", "Records not yet read", ["topic"])
READY = Gauge("fleetbeat_worker_ready", "1 when recovered and not lagging")
EVENT_LOOP_LAG = Gauge("fleetbeat_event_loop_lag_seconds", "How late the last timer of the worker was")
