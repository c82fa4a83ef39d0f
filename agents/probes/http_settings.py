"""What may stand in the config of kind `http` beside the URL: method, headers, and what is expected of the answer."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agents.probes.base import Settings

Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT"]

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


def _is_regex(text: str) -> str:
    compiled(text)
    return text


def compiled(regex: str) -> "re.Pattern[str]":
    """A pattern of RE2, whose time is linear in the body: no body can make it hang. Raises ValueError."""
    import re2  # noqa: PLC0415 - 20 ms and 5 MB, only for those who have a regex

    options = re2.Options()
    options.log_errors = False
    try:
        pattern: re.Pattern[str] = re2.compile(regex, options)
    except re2.error as cause:
        raise ValueError(f"{cause}; expected a regular expression as RE2 has them") from cause
    return pattern


HeaderValue = Annotated[str, Field(max_length=4_096), AfterValidator(_is_value)]
Headers = Annotated[dict[Annotated[str, AfterValidator(_is_open_header)], HeaderValue], Field(max_length=32)]
SecretFiles = Annotated[dict[Annotated[str, AfterValidator(_is_header)], Path], Field(max_length=32)]
Body = Annotated[str, Field(max_length=65_536)]
Statuses = Annotated[tuple[Annotated[int | str, AfterValidator(_is_range)], ...], Field(min_length=1, max_length=32)]
Text = Annotated[str, Field(min_length=1, max_length=4_096)]


class Expected(Settings):
    """All of it has to hold; a header's value has to contain the text that is given for it."""

    status: Statuses = ("200-299",)
    headers: dict[Annotated[str, AfterValidator(_is_header)], Text] = Field(default_factory=dict)
    body_contains: Text | None = None
    body_regex: Annotated[Text, AfterValidator(_is_regex)] | None = None
