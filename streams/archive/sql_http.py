"""Requests and responses of ClickHouse's HTTP interface: who asks what, with which settings, and how to answer."""

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from streams.archive import wire
from streams.archive.ddl import DATABASE
from streams.archive.gate import ErrorCode, RefusedError
from streams.archive.settings import admit_params
from streams.archive.sql_limits import Limits
from streams.archive.sql_sessions import SessionRequest, read_session
from streams.archive.sql_users import Login

_DEFAULT_FORMAT = "TabSeparated"
_UNSAID_DATABASES = frozenset({"default", "__default__"})  # what clients send when their user named none

# Of the interface itself; what is not named here and not `param_*` is a setting.
_TRANSPORT = frozenset({
    "add_http_cors_header", "buffer_size", "cancel_http_readonly_queries_on_client_close", "client_protocol_version",
    "close_session", "compress", "database", "default_format", "enable_http_compression",
    "http_headers_progress_interval_ms", "http_write_exception_in_output_format", "http_zlib_compression_level",
    "network_compression_method", "password", "query", "query_id", "quota_key", "send_progress_in_http_headers",
    "session_check", "session_id", "session_timeout", "user", "wait_end_of_query",
})  # fmt: skip

_BODY_S = 30
# What aiohttp says of a body that cannot be unpacked, and of a form that is none.
_UNREADABLE = (web.RequestPayloadError, HttpProcessingError, LookupError, RuntimeError, ValueError)

_LOGIN_HEADERS = ("Authorization", "X-ClickHouse-User", "X-ClickHouse-Key")


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it was sent; nobody has judged its text or its settings yet."""

    sql: str
    database: str  # empty when nobody named one
    output_format: str
    settings: dict[str, str]
    params: dict[str, str]
    protocol: bool  # the client gave its protocol version
    compress: bool
    encoding: str  # of the response's body as HTTP names it: gzip, lz4 or none
    waits: bool  # nothing is to be sent before all of the result is there
    session: SessionRequest | None


async def read_query(request: web.Request, limits: Limits) -> Query:
    """Puts a query together from address, headers and body. Raises RefusedError."""
    asked, text = dict(request.query), ""
    try:
        async with asyncio.timeout(_BODY_S):
            if request.content_type == "multipart/form-data":
                asked |= _form_fields(dict(await request.post()))
            else:
                text = (await request.read()).decode()
    except TimeoutError:
        raise RefusedError(ErrorCode.SOCKET_TIMEOUT, f"The body did not come within {_BODY_S} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError(
            ErrorCode.QUERY_IS_TOO_LARGE, f"Query is too large: expected at most {limits.query_bytes} bytes"
        ) from None
    except UnicodeDecodeError:
        raise RefusedError(ErrorCode.READONLY, "The body is no text, and this endpoint takes no data") from None
    except _UNREADABLE as problem:
        said = " ".join(str(problem).split())[:200]
        raise RefusedError(ErrorCode.BAD_ARGUMENTS, f"The body cannot be read: {said}") from None
    settings = {name: asked[name] for name in asked.keys() - _TRANSPORT if not name.startswith("param_")}
    if settings.pop("decompress", "0") not in {"", "0"}:
        raise RefusedError(ErrorCode.NOT_IMPLEMENTED, "decompress=1: expected a plain or gzip body")
    database = asked.get("database") or _header(request, "X-ClickHouse-Database") or ""
    encodings = request.headers.get("Accept-Encoding", "")
    return Query(
        sql="\n".join(part for part in (asked.get("query", ""), text) if part).strip(),
        database=DATABASE if database in _UNSAID_DATABASES else database,
        output_format=asked.get("default_format") or _header(request, "X-ClickHouse-Format") or _DEFAULT_FORMAT,
        settings=settings,
        params=admit_params({name[6:]: value for name, value in asked.items() if name.startswith("param_")}),
        protocol=asked.get("client_protocol_version", "0") != "0",
        compress=asked.get("compress") == "1",
        encoding=_encoding(encodings) if asked.get("enable_http_compression") == "1" else "",
        waits=asked.get("wait_end_of_query") == "1" or not _takes_pieces(request),
        session=read_session(asked),
    )


def read_login(request: web.Request) -> Login | None:
    """Who a request says it is, in one of ClickHouse's three ways; None when it says nothing. Raises RefusedError."""
    found = []
    if header := request.headers.get("Authorization"):
        found.append(_basic(header))
    name, key = (_header(request, header) for header in _LOGIN_HEADERS[1:])
    if name is not None or key is not None:
        found.append(Login(name or "", key or ""))
    asked = request.query
    if "user" in asked or "password" in asked:
        found.append(Login(asked.get("user", ""), asked.get("password", "")))
    if len(set(found)) > 1:
        raise RefusedError(
            ErrorCode.AUTHENTICATION_FAILED,
            "Invalid authentication: it is not allowed to log in as different users in one request; "
            "expected one of Authorization, X-ClickHouse-User with X-ClickHouse-Key, user= with password=",
        )
    return found[0] if found else None


def says_who(request: web.Request) -> bool:
    """Whether a request tries to log in."""
    return any(name in request.headers for name in _LOGIN_HEADERS) or bool({"user", "password"} & request.query.keys())


def answer_headers(output_format: str, summary: dict[str, int]) -> dict[str, str]:
    """What stands above the result of a query that ran, or runs."""
    return {
        "Content-Type": wire.content_type(output_format),
        "X-ClickHouse-Format": output_format,
        "X-ClickHouse-Summary": json.dumps(
            {
                **{name: str(number) for name, number in summary.items()},
                "written_rows": "0",
                "written_bytes": "0",
                "total_rows_to_read": "0",
            }
        ),
    }


def _basic(header: str) -> Login:
    scheme, _, text = header.partition(" ")
    try:
        said = base64.b64decode(text.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except (ValueError, binascii.Error):
        said = ""
    name, colon, password = said.partition(":")
    if not colon:
        raise RefusedError(
            ErrorCode.AUTHENTICATION_FAILED, "Invalid authentication: Authorization: expected Basic and USER:PASSWORD"
        )
    return Login(name, password)


def _encoding(accepted: str) -> str:
    """On loopback packing costs more than it saves: only for those who know nothing else.

    The JDBC driver takes everything for LZ4 when it asked for that.
    """
    names = {name.partition(";")[0].strip() for name in accepted.split(",")}
    if names == {"lz4"}:
        return "lz4"
    return "gzip" if "gzip" in names and "lz4" not in names else ""


def _header(request: web.Request, name: str) -> str | None:
    """As text that can be encoded again: aiohttp keeps bytes that are no UTF-8 as halves of characters."""
    text = request.headers.get(name)
    return None if text is None else text.encode(errors="surrogateescape").decode(errors="replace")


def _takes_pieces(request: web.Request) -> bool:
    """Whether a body may be sent whose length is not known. HTTP/1.0 has no such bodies, and HEAD has none at all."""
    return request.version >= HttpVersion11 and request.method != "HEAD"


def _form_fields(fields: dict[str, object]) -> dict[str, str]:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    for name in fields:
        if name not in texts or not (name == "query" or name.startswith("param_")):
            raise RefusedError(ErrorCode.NOT_IMPLEMENTED, f"Form field {name}: external data is not supported")
    return texts
