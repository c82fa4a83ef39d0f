"""Heartbeats, probe results and request counts as framed Avro, by columns; byte for byte what schemas.codec writes."""

from collections.abc import Sequence

import numpy as np

from agents.simulate.histograms import tally
from agents.simulate.pieces import Piece, Table, constant, long, longs, string, table
from agents.simulate.rows import BOOT, BROKEN, OK, OUTCOMES, REFUSED, TIMEOUT, Ints, Rows, Series
from schemas.catalog import load_catalog
from schemas.codec import frame

AGENT_VERSION = "simulate"
_NULL = long(0)
_PRESENT = long(1)
_NO_LABELS = long(0)
_HTTP_OK = 200
_HTTP_BROKEN = 503
_NOT_TOLD = _NULL * 3  # of the spool's age, the config and where health was read: there are none
_PHASES = 5  # resolve, connect, tls, first byte, transfer: the simulated fleet does not tell them apart


class Bodies:
    """Encodes rows for one fleet; `see` it the boots before the rows that name them."""

    def __init__(  # noqa: PLR0913 - all that records name, by position as rows have it
        self,
        nodes: Table,
        places: Sequence[tuple[str, str]],
        place: Ints,
        series: Sequence[Series],
        interval_ms: int,
        counted: Sequence[Series] = (),
    ) -> None:
        """`places` are (region, zone), `place` each node's index there; `interval_ms` is what heartbeats promise.

        `series` are those of probe results, `counted` those of request counts.
        """
        catalog = load_catalog()
        self._heartbeat_frame = constant(frame(catalog.topic("heartbeats").latest.id, b""))
        self._result_frame = constant(frame(catalog.topic("probe-results").latest.id, b""))
        self._count_frame = constant(frame(catalog.topic("request-counts").latest.id, b""))
        self._nodes = nodes
        self._place = place
        self._places = table([string(region) + string(zone) + string(AGENT_VERSION) for region, zone in places])
        self._series = table([_series_text(one) for one in series])
        self._counted = table([_counted_text(one) for one in counted] or [b"\0"])
        self._is_http = np.array([one.kind.startswith("http") for one in series])
        self._endings = table(
            [_ending(outcome, is_http=is_http) for is_http in (False, True) for outcome in range(len(OUTCOMES))]
        )
        self._interval = constant(long(interval_ms))
        self._boots = np.empty(0, BOOT)

    def see(self, boots: Rows) -> None:
        """Takes in new boots; their index goes on where the last call ended."""
        if len(boots):
            self._boots = np.concatenate([self._boots, boots])

    def heartbeats(self, rows: Rows) -> list[Piece]:
        """The framed heartbeats of HEARTBEAT rows."""
        node, boots = rows["node"], self._boots[rows["boot"]]
        present = constant(_PRESENT)
        return [
            self._heartbeat_frame,
            *self._nodes.pick_strings(node),
            longs(rows["ts_ms"]),
            constant(long(16)),
            _texts(boots["boot_id"]),
            longs(boots["boot_ts"]),
            _column(rows, "seq"),
            self._interval,
            _column(rows, "state"),
            self._places.pick(self._place[node]),
            present,
            _column(rows, "health"),
            present,
            _column(rows, "cpu_permille"),
            present,
            _column(rows, "memory_permille"),
            present,
            _column(rows, "disk_permille"),
            _column(rows, "spooled"),
            constant(long(0) + _NO_LABELS + _PRESENT),  # nothing was dropped
            _column(rows, "heartbeat_seq"),
            constant(_NOT_TOLD),
        ]

    def results(self, rows: Rows) -> list[Piece]:
        """The framed probe results of RESULT rows."""
        series = rows["series"]
        return [
            self._result_frame,
            *self._nodes.pick_strings(rows["node"]),
            longs(rows["ts_ms"]),
            constant(long(16)),
            _texts(self._boots["boot_id"][rows["boot"]]),
            _column(rows, "seq"),
            self._series.pick(series),
            Piece(rows["success"].astype(np.uint8).reshape(-1, 1)),
            _column(rows, "latency_us"),
            constant(_NULL * _PHASES),
            self._endings.pick(self._is_http[series] * len(OUTCOMES) + rows["outcome"]),
        ]

    def counts(self, rows: Rows, requests: Rows) -> list[Piece]:
        """The framed request counts of COUNT rows, whose `first` are places in `requests`."""
        found = tally(rows, requests)
        return [
            self._count_frame,
            *self._nodes.pick_strings(rows["node"]),
            longs(rows["ts_ms"]),
            _column(rows, "window_ms"),
            constant(long(16)),
            _texts(self._boots["boot_id"][rows["boot"]]),
            _column(rows, "seq"),
            self._counted.pick(rows["series"]),
            _column(rows, "total"),
            longs(found.good),
            longs(found.sum_us),
            longs(found.max_us),
            *found.histogram,
            constant(_NO_LABELS),
        ]


def probe_name(series: Series) -> str:
    """The probe in a record of this series."""
    return f"{series.service}-{series.kind}"


def explain(outcome: int, kind: str) -> tuple[int | None, str | None]:
    """(status code, error) of a record: a BROKEN answer is a 503 over HTTP and a closed connection elsewhere."""
    is_http = kind.startswith("http")
    match outcome:
        case _ if outcome == OK:
            return (_HTTP_OK if is_http else None), None
        case _ if outcome == TIMEOUT:
            return None, "timeout"
        case _ if outcome == REFUSED:
            return None, "refused"
        case _ if outcome == BROKEN:
            return (_HTTP_BROKEN, "status") if is_http else (None, "reset")
    raise ValueError(f"outcome {outcome}; expected 0 to {len(OUTCOMES) - 1}")


def _series_text(one: Series) -> bytes:
    return b"".join(string(text) for text in (probe_name(one), one.kind, one.service, one.endpoint, one.region))


def _counted_text(one: Series) -> bytes:
    return b"".join(string(text) for text in (one.service, one.endpoint, one.region))


def _ending(outcome: int, *, is_http: bool) -> bytes:
    status, error = explain(outcome, "http" if is_http else "tcp")
    status_code = _NULL if status is None else _PRESENT + long(status)
    reason = _NULL if error is None else _PRESENT + string(error)
    impact = trace_id = _NULL
    return status_code + reason + impact + trace_id + _NO_LABELS


def _column(rows: Rows, name: str) -> Piece:
    values: Ints = rows[name].astype(np.int64)
    return longs(values)


def _texts(column: np.ndarray[tuple[int], np.dtype[np.bytes_]]) -> Piece:
    """Strings of one width, without their length."""
    return Piece(np.ascontiguousarray(column).view(np.uint8).reshape(len(column), -1))
