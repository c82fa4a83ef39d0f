"""What may stand in the config of kind `http` beside the URL: method, headers, and what is expected of the answer."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agents.probes.base import Settings
from agents.probes.http_json import JsonExpected
from agents.probes.regex import Regex, Text

Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_RANGE = re.compile(r"([1-9]\d\d)(?:-([1-9]\d\d))?")
# The probe writes these itself; compressed bodies are not asked for, since nothing decompresses them.
_OURS = frozenset({"accept-encoding", "connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"})
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})


def _is_header(name: str) -> str:
    if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
        raise ValueError(f"expected the name of a header, and none of: {', '.join(sorted(_OURS))}")
    return name.title()


def _is_open_header(name: str) -> str:
    if name.lower() in _SECRET:
        raise ValueError("a secret in the config; expected it under header_files, with a file that holds the value")
    return _is_header(name)


def _is_value(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("expected printable ASCII")
    return value.strip()


def _is_range(text: int | str) -> str:
    found = _RANGE.fullmatch(str(text))
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise ValueError("expected a status such as 204 or a range such as 200-299")
    return str(text)


HeaderValue = Annotated[str, Field(max_length=4_096), AfterValidator(_is_value)]
Headers = Annotated[dict[Annotated[str, AfterValidator(_is_open_header)], HeaderValue], Field(max_length=32)]
SecretFiles = Annotated[dict[Annotated[str, AfterValidator(_is_header)], Path], Field(max_length=32)]
Body = Annotated[str, Field(max_length=65_536)]
Statuses = Annotated[tuple[Annotated[int | str, AfterValidator(_is_range)], ...], Field(min_length=1, max_length=32)]


HeaderName = Annotated[str, AfterValidator(_is_header)]


class Expected(Settings):
    """All of it has to hold; a header's value has to contain the text that is given for it.

    `max_latency_ms` is the run's whole time, redirects included; `min_valid_days` of the certificate seen last.
    """

    status: Statuses = ("200-299",)
    headers: dict[HeaderName, Text] = Field(default_factory=dict)
    header_regex: dict[HeaderName, Regex] = Field(default_factory=dict)
    body_contains: Text | None = None
    body_regex: Regex | None = None
    body_not_regex: Regex | None = None
    body_json: Annotated[tuple[JsonExpected, ...], Field(max_length=64)] = ()
    max_latency_ms: Annotated[float, Field(gt=0, le=86_400_000)] | None = None
    min_valid_days: Annotated[float, Field(ge=0, le=36_500)] | None = None
