"""Logs of the agent: one JSON object a line on stderr, by the standard library alone."""

import json
import logging
import sys
from datetime import UTC, datetime

from agents.probes.trace import current_trace

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Names its fields as the worker's logs do; what was given as `extra` stands beside them, and a run's trace id."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; control characters come out escaped."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        trace = current_trace()
        if trace is not None:
            fields["trace_id"] = trace.trace_id
        fields |= {key: value for key, value in vars(record).items() if key not in _USUAL}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure_logs() -> None:
    """Send every message from INFO on through JsonLines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # While Kafka is away it reports each try, ten a second; agents.kafka says once that it went, and once that it came.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
