"""What the oracle looks at: the worker's views and the archive's SQL, both over plain HTTP."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from infra import InfraError
from infra.oracle.recompute import Window

TIMEOUT_S = 20.0
# One request for slices covers at most this much event time.
SPAN_MS = 120_000


class UnavailableError(InfraError):
    """A view or a table does not answer as expected; while the stack is busy this may pass."""


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One second of an SLO as the view shows it; `late` of its total came after it was sealed."""

    window: Window
    late: int


@dataclass(frozen=True, slots=True)
class Views:
    """The worker's HTTP views under a base URL."""

    base_url: str

    def slices(self, slo: str, from_ms: int, to_ms: int) -> dict[int, SliceRow]:
        """Slices with events that start in [from_ms, to_ms), by start. Raises UnavailableError."""
        rows = {}
        for start in range(from_ms, to_ms, SPAN_MS):
            query = urllib.parse.urlencode({"from_ms": start, "to_ms": min(start + SPAN_MS, to_ms)})
            answer = self._get(f"/api/v1/slos/{urllib.parse.quote(slo, safe='')}/slices?{query}")
            for row in answer["slices"]:
                rows[row["start_ms"]] = SliceRow(Window(*(row[one.name] for one in fields(Window))), row["late"])
        return rows

    def _get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(_fetch(urllib.request.Request(self.base_url + path)))  # noqa: S310 - http, built by us


@dataclass(frozen=True, slots=True)
class Sql:
    """ClickHouse's HTTP protocol under a base URL; queries read the database `telemetry`."""

    base_url: str

    def rows(self, query: str) -> Iterator[bytes]:
        """The answer's lines in TabSeparated format. Raises UnavailableError."""
        request = urllib.request.Request(self.base_url + "/", data=f"{query} FORMAT TabSeparated".encode())  # noqa: S310 - http, built by us
        return iter(_fetch(request).splitlines())

    def number(self, query: str) -> int:
        """The only value of the answer. Raises UnavailableError."""
        return int(next(self.rows(query)))


def _fetch(request: urllib.request.Request) -> bytes:
    where = request.full_url
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - http, built by us
            return bytes(response.read())
    except urllib.error.HTTPError as cause:
        detail = cause.read(400).decode(errors="replace").strip()
        raise UnavailableError(f"{where} answered {cause.code}: {detail or 'no reason given'}") from cause
    except OSError as cause:
        raise UnavailableError(f"{where} does not answer: {cause}") from cause
