"""Statements over ClickHouse's HTTP protocol: an answer in pieces as it comes, errors with their codes."""

import re
from base64 import b64encode
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Self
from urllib.parse import unquote, urlencode, urlsplit

_PORTS = {"http": 8123, "https": 8443}
_CONNECTIONS = {"http": HTTPConnection, "https": HTTPSConnection}
_PIECE_BYTES = 1 << 16
_OK = 200
_CODE = re.compile(r"Code: (\d+)\.")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class AddressError(ValueError):
    """The URL cannot be one of ClickHouse's HTTP interface."""


class UnreachableError(RuntimeError):
    """Nothing answers there, or not as ClickHouse does."""


class ServerError(RuntimeError):
    """What ClickHouse says instead of rows, with its code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where statements are sent, and as whom; a connection is made for each, so it can be used from any thread."""

    scheme: str
    host: str
    port: int
    database: str = ""
    user: str = ""
    password: str = ""
    timeout_s: float = 60.0
    settings: tuple[tuple[str, str], ...] = ()  # go with every statement

    @classmethod
    def parse(cls, url: str) -> Self:
        """From http[s]://[USER:PASSWORD@]HOST[:PORT][/DATABASE]. Raises AddressError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as cause:
            raise AddressError(f"url {_without_password(url)}: {cause}") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.query:
            raise AddressError(
                f"url {_without_password(url)!r}: expected http://HOST:PORT, perhaps with USER:PASSWORD@ and /DATABASE"
            )
        return cls(
            parts.scheme,
            parts.hostname,
            port or _PORTS[parts.scheme],
            unquote(parts.path.strip("/")),
            unquote(parts.username or ""),
            unquote(parts.password or ""),
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def ask(self, sql: str, output_format: str, params: Mapping[str, str] | None = None) -> Generator[bytes]:
        """The answer in pieces. Raises ServerError and UnreachableError, also in between."""
        asked = {"default_format": output_format, **({"database": self.database} if self.database else {})}
        asked |= dict(self.settings)
        asked |= {f"param_{name}": value.translate(_ESCAPES) for name, value in (params or {}).items()}
        connection = _CONNECTIONS[self.scheme](self.host, self.port, timeout=self.timeout_s)
        try:
            try:
                connection.request("POST", "/?" + urlencode(asked), sql.encode(), self._headers())
                response = connection.getresponse()
                if response.status != _OK or response.getheader("X-ClickHouse-Exception-Code"):
                    raise _error(self, response)
                while piece := response.read(_PIECE_BYTES):
                    yield piece
            except (OSError, HTTPException) as cause:
                raise UnreachableError(f"{self}: no answer: {str(cause) or type(cause).__name__}") from cause
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        if not self.user:
            return {}
        return {"Authorization": "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()}


def _error(endpoint: Endpoint, response: HTTPResponse) -> Exception:
    text = response.read().decode(errors="replace").strip()
    code = response.getheader("X-ClickHouse-Exception-Code") or next(iter(_CODE.findall(text)), "")
    if code.isdigit():
        return ServerError(int(code), text)
    return UnreachableError(f"{endpoint}: HTTP status {response.status}, and not from ClickHouse: {text[:200]}")


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//…@", url)
