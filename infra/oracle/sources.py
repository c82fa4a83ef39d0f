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
PAGE_OF_NODES = 1_000


class UnavailableError(InfraError):
    """A view or a table does not answer as expected; while the stack is busy this may pass."""


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One second of an SLO as the view shows it; `late` of its total came after it was sealed."""

    window: Window
    late: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one node since it was first seen, or of all nodes: heartbeats, those that never came, new boots."""

    heartbeats: int
    lost: int
    restarts: int


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the views show it."""

    node_id: str
    state: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class StateRow:
    """A record of node-states as SQL has it; `zone` is (region, zone), times are append times in ms UTC."""

    subject: str
    kind: str
    state: str
    zone: tuple[str, str]
    last_seen_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class Views:
    """The worker's HTTP views under a base URL."""

    base_url: str
    timeout_s: float = TIMEOUT_S

    def slices(self, slo: str, from_ms: int, to_ms: int) -> dict[int, SliceRow]:
        """Slices with events that start in [from_ms, to_ms), by start. Raises UnavailableError."""
        rows = {}
        for start in range(from_ms, to_ms, SPAN_MS):
            query = urllib.parse.urlencode({"from_ms": start, "to_ms": min(start + SPAN_MS, to_ms)})
            answer = self._get(f"/api/v1/slos/{urllib.parse.quote(slo, safe='')}/slices?{query}")
            for row in answer["slices"]:
                rows[row["start_ms"]] = SliceRow(Window(*(row[one.name] or 0 for one in fields(Window))), row["late"])
        return rows

    def nodes(self) -> Iterator[NodeView]:
        """Every node, by id. Raises UnavailableError."""
        for page in self._pages(None):
            yield from (NodeView(row["node_id"], row["state"], _counts(row)) for row in page["nodes"])

    def nodes_in(self, state: str) -> tuple[frozenset[str], int]:
        """Ids of the nodes in a state, and up to when that is complete, ms UTC. Raises UnavailableError."""
        pages = list(self._pages(state))
        ids = frozenset(row["node_id"] for page in pages for row in page["nodes"])
        return ids, min(page["complete_to_ms"] for page in pages)

    def outages(self) -> frozenset[tuple[str, str]]:
        """The (region, zone) that are lost now. Raises UnavailableError."""
        outages = self._get("/api/v1/fleet")["outages"]
        return frozenset((outage["region"], outage["zone"]) for outage in outages)

    def totals(self) -> Counts:
        """Sums over all nodes. Raises UnavailableError."""
        return _counts(self._get("/api/v1/fleet")["totals"])

    def _pages(self, state: str | None) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            asked = {"limit": PAGE_OF_NODES, "state": state, "after": after}
            query = urllib.parse.urlencode({name: value for name, value in asked.items() if value is not None})
            page = self._get(f"/api/v1/nodes?{query}")
            yield page
            after = page["next"]
            if after is None:
                return

    def _get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        request = urllib.request.Request(self.base_url + path)  # noqa: S310 - http, built by us
        return json.loads(_fetch(request, self.timeout_s))


@dataclass(frozen=True, slots=True)
class Sql:
    """ClickHouse's HTTP protocol under a base URL; queries read the database `telemetry`."""

    base_url: str

    def rows(self, query: str) -> Iterator[bytes]:
        """The answer's lines in TabSeparated format. Raises UnavailableError."""
        request = urllib.request.Request(self.base_url + "/", data=f"{query} FORMAT TabSeparated".encode())  # noqa: S310 - http, built by us
        return iter(_fetch(request).splitlines())

    def node_states(self) -> list[StateRow]:
        """Every record of telemetry.node_states, once. Raises UnavailableError."""
        query = (
            "SELECT subject, kind, state, region, zone, toUnixTimestamp64Milli(last_seen), "
            "toUnixTimestamp64Milli(received_at) FROM telemetry.node_states FINAL"
        )
        found = []
        for line in self.rows(query):
            subject, kind, state, region, zone, last_seen_ms, received_ms = line.decode().split("\t")
            found.append(StateRow(subject, kind, state, (region, zone), int(last_seen_ms), int(received_ms)))
        return found

    def number(self, query: str) -> int:
        """The only value of the answer. Raises UnavailableError."""
        return int(next(self.rows(query)))


def _counts(row: dict[str, Any]) -> Counts:
    return Counts(*(row[one.name] for one in fields(Counts)))


def quoted(text: str) -> str:
    """The text as a string of SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _fetch(request: urllib.request.Request, timeout_s: float = TIMEOUT_S) -> bytes:
    where = request.full_url
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - http, built by us
            return bytes(response.read())
    except urllib.error.HTTPError as cause:
        detail = cause.read(400).decode(errors="replace").strip()
        raise UnavailableError(f"{where} answered {cause.code}: {detail or 'no reason given'}") from cause
    except OSError as cause:
        raise UnavailableError(f"{where} does not answer: {cause}") from cause
