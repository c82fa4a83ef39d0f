"""Which queries were slow: a line in the log and the last of them in memory, their literals taken out."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

import structlog

from streams.archive.embedded import EmbeddedStore, SqlError
from streams.archive.gate import ErrorCode
from streams.archive.sql_run import Totals
from streams.archive.wire import escaped

_log = structlog.get_logger(__name__)

KEPT = 200
TEXT_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a query ended, and ClickHouse's code of its error."""

    kind: Literal["ok", "failed", "cancelled"]
    code: int = 0


OK = Outcome("ok")
LEFT = Outcome("cancelled", ErrorCode.QUERY_WAS_CANCELLED)  # the client went, or did not read


@dataclass(frozen=True, slots=True)
class SlowQuery:
    """One that took longer than the limit. `code` is ClickHouse's of its error, 0 when it gave its result."""

    at_ms: int
    query_id: str
    user: str
    duration_ms: int
    waited_ms: int
    read_rows: int
    read_bytes: int
    result_rows: int
    result_bytes: int
    code: int
    query: str

    @classmethod
    def of(  # noqa: PLR0913 - what is known of a query when it has ended
        cls, totals: Totals, query_id: str, user: str, code: int, waited_s: float, text: str
    ) -> Self:
        """One that ended just now."""
        took_ms = totals.elapsed_ns // 1_000_000
        return cls(
            at_ms=time.time_ns() // 1_000_000 - took_ms,
            query_id=query_id,
            user=user,
            duration_ms=took_ms,
            waited_ms=int(waited_s * 1_000),
            read_rows=totals.read_rows,
            read_bytes=totals.read_bytes,
            result_rows=totals.result_rows,
            result_bytes=totals.result_bytes,
            code=int(code),
            query=text,
        )

    def payload(self) -> dict[str, Any]:
        """As JSON shows it."""
        at = datetime.fromtimestamp(self.at_ms / 1_000, UTC).isoformat(timespec="milliseconds")
        return {"at": at.replace("+00:00", "Z"), **{k: v for k, v in asdict(self).items() if k != "at_ms"}}


class SlowQueries:
    """The last slow queries, the newest first."""

    def __init__(self) -> None:
        self._kept: deque[SlowQuery] = deque(maxlen=KEPT)

    def add(self, query: SlowQuery) -> None:
        """Logs it and keeps it."""
        self._kept.appendleft(query)
        _log.warning("sql_query_slow", **query.payload())

    def of(self, user: str | None) -> Iterator[SlowQuery]:
        """Those of one user; without one, of all."""
        return (query for query in self._kept if user in {None, query.user})


def normalized(store: EmbeddedStore, sql: str) -> str:
    """The text without its literals: they may be what nobody else should read. Empty when it is no SQL."""
    with store.handle() as handle:
        try:
            found = handle.query("SELECT normalizeQuery({q:String})", "RawBLOB", {"q": escaped(sql)})
        except SqlError:
            return ""
    return " ".join(found.data.decode(errors="replace").split())[:TEXT_CHARACTERS]
