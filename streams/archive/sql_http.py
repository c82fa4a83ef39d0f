"""Requests and responses of ClickHouse's HTTP interface: what was asked, with which limits, and how to answer."""

import json
from dataclasses import dataclass

from aiohttp import web

from streams.archive import wire
from streams.archive.ddl import DATABASE
from streams.archive.embedded import Answer
from streams.archive.gate import ErrorCode, RefusedError
from streams.archive.settings import admit_params, admit_settings

_DEFAULT_FORMAT = "TabSeparated"
_GZIP_FROM_BYTES = 4096
_UNSAID_DATABASES = frozenset({"default", "__default__"})  # what clients send when their user named none

# Of the interface itself; what is not named here and not `param_*` is a setting.
_TRANSPORT = frozenset({
    "add_http_cors_header", "buffer_size", "cancel_http_readonly_queries_on_client_close", "client_protocol_version",
    "close_session", "compress", "database", "default_format", "enable_http_compression",
    "http_headers_progress_interval_ms", "http_write_exception_in_output_format", "http_zlib_compression_level",
    "network_compression_method", "password", "query", "query_id", "quota_key", "send_progress_in_http_headers",
    "session_check", "session_id", "session_timeout", "user", "wait_end_of_query",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """What queries may take from the process that also writes the archive."""

    running: int = 4
    waiting: int = 32
    wait_s: float = 10.0
    execution_s: int = 30
    threads: int = 2
    result_bytes: int = 256 << 20
    query_bytes: int = 256 << 10  # the engine's own max_query_size

    def settings(self, memory_cap_bytes: int) -> dict[str, int]:
        """As settings of one query; all together they may fill half of the memory, so inserts go on."""
        return {
            "max_execution_time": self.execution_s,
            "max_threads": self.threads,
            "max_result_bytes": self.result_bytes,
            "max_memory_usage": memory_cap_bytes // (2 * self.running),
        }


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it was sent; nobody has judged its text yet."""

    sql: str
    database: str
    output_format: str
    settings: dict[str, str]
    params: dict[str, str]
    protocol: bool  # the client gave its protocol version
    compress: bool
    encoding: str  # of the response's body as HTTP names it: gzip, lz4 or none


async def read_query(request: web.Request, limits: Limits, memory_cap_bytes: int) -> Query:
    """Puts a query together from address, headers and body. Raises RefusedError."""
    asked, text = dict(request.query), ""
    try:
        if request.content_type == "multipart/form-data":
            asked |= _form_fields(dict(await request.post()))
        else:
            text = (await request.read()).decode()
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError(
            ErrorCode.QUERY_IS_TOO_LARGE, f"Query is too large: expected at most {limits.query_bytes} bytes"
        ) from None
    except UnicodeDecodeError:
        raise RefusedError(ErrorCode.READONLY, "The body is no text, and this endpoint takes no data") from None
    settings = {name: asked[name] for name in asked.keys() - _TRANSPORT if not name.startswith("param_")}
    if settings.pop("decompress", "0") not in {"", "0"}:
        raise RefusedError(ErrorCode.NOT_IMPLEMENTED, "decompress=1: expected a plain or gzip body")
    database = asked.get("database") or request.headers.get("X-ClickHouse-Database") or DATABASE
    encodings = request.headers.get("Accept-Encoding", "")
    return Query(
        sql="\n".join(part for part in (asked.get("query", ""), text) if part).strip(),
        database=DATABASE if database in _UNSAID_DATABASES else database,
        output_format=asked.get("default_format") or request.headers.get("X-ClickHouse-Format") or _DEFAULT_FORMAT,
        settings=admit_settings(settings, limits.settings(memory_cap_bytes)),
        params=admit_params({name[6:]: value for name, value in asked.items() if name.startswith("param_")}),
        protocol=asked.get("client_protocol_version", "0") != "0",
        compress=asked.get("compress") == "1",
        encoding=_encoding(encodings) if asked.get("enable_http_compression") == "1" else "",
    )


def write_answer(query: Query, answer: Answer, output_format: str, headers: dict[str, str]) -> web.Response:
    """The response to a query that ran."""
    summary = {
        "read_rows": answer.read_rows,
        "read_bytes": answer.read_bytes,
        "written_rows": 0,
        "written_bytes": 0,
        "total_rows_to_read": 0,
        "result_rows": answer.result_rows,
        "result_bytes": len(answer.data),
        "elapsed_ns": answer.elapsed_ns,
    }
    headers |= {
        "Content-Type": wire.content_type(output_format),
        "X-ClickHouse-Format": output_format,
        "X-ClickHouse-Summary": json.dumps({name: str(number) for name, number in summary.items()}),
    }
    body = b"".join(wire.compressed(answer.data)) if query.compress else answer.data
    if query.encoding == "lz4":
        body = wire.lz4_frame(body)
        headers["Content-Encoding"] = "lz4"
    response = web.Response(body=body, headers=headers)
    if query.encoding == "gzip" and len(body) >= _GZIP_FROM_BYTES:
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _encoding(accepted: str) -> str:
    """On loopback packing costs more than it saves: only for those who know nothing else.

    The JDBC driver takes everything for LZ4 when it asked for that.
    """
    names = {name.partition(";")[0].strip() for name in accepted.split(",")}
    if names == {"lz4"}:
        return "lz4"
    return "gzip" if "gzip" in names and "lz4" not in names else ""


def _form_fields(fields: dict[str, object]) -> dict[str, str]:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    for name in fields:
        if name not in texts or not (name == "query" or name.startswith("param_")):
            raise RefusedError(ErrorCode.NOT_IMPLEMENTED, f"Form field {name}: external data is not supported")
    return texts
