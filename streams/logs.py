"""Structured logs: one JSON object a line on stderr, for our own and for the libraries' messages."""

import logging
import sys

import structlog

from streams.log_repeats import Repeats


def configure_logs(level: str = "INFO") -> None:
    """Send structlog's and logging's messages through one JSON formatter. Control characters come out escaped."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    set_level(level)
    for library in ("faust", "mode", "aiokafka", "streams.engine"):  # our engine has Faust's services by inheritance
        logging.getLogger(library).setLevel(logging.WARNING)  # a screen of "Starting..." hides what matters
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """From now on."""
    logging.getLogger().setLevel(level.upper())
