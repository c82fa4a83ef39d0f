"""A probe's settings with {target}, {host} and {port} in them, filled in for one target after the other. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

# 192.0.2.0/24 is for examples (RFC 5737): a host as well as an address.
SAMPLE_HOST, SAMPLE_PORT = "192.0.2.1", 443
SAMPLE = f"{SAMPLE_HOST}:{SAMPLE_PORT}"

_HOLE = re.compile(r"\{(target|host|port)\}")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:/?#@\[\]\s]+))(?::(?P<port>\d{1,5}))?")


class TemplateError(ValueError):
    """A target does not fit into the settings."""


def plain(settings: object) -> object:
    """Dicts and lists, whatever a YAML library calls them."""
    if isinstance(settings, Mapping):
        return {str(key): plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return settings


def has_holes(settings: object) -> bool:
    """Whether a target makes any difference."""
    found = False

    def look(_: str, text: str) -> object:
        nonlocal found
        found = found or _HOLE.search(text) is not None
        return text

    _filled(settings, look, "")
    return found


def filled(settings: object, address: str) -> object:
    """The settings for this target. Raises TemplateError.

    A text that is nothing but {port} becomes a number. Names of files are left alone: what is discovered must not
    choose which files are read.
    """
    host, port = _parts(address)

    def fill(key: str, text: str) -> object:
        if not _HOLE.search(text):
            return text
        if key.endswith(("_file", "_files")):
            raise TemplateError(f"{key}: {text!r}; expected no {{target}} in the name of a file")
        if text == "{target}":
            return address
        if text == "{host}":
            return _given(host, "host", address)
        if text == "{port}":
            return int(_given(port, "port", address))
        return _HOLE.sub(lambda hole: _piece(hole[1], host, port, address), text)

    return _filled(settings, fill, "")


def sampled(settings: object) -> object:
    """The settings for a target that stands for all, to be checked when the config is loaded. Raises TemplateError."""

    def fill(key: str, text: str) -> object:
        if text == "{target}":
            return f"https://{SAMPLE}/" if key == "url" else SAMPLE_HOST
        return filled({key: text}, SAMPLE)[key]  # type: ignore[index]

    return _filled(settings, fill, "")


def sampled_probe(probe: Any, fields: Iterable[str]) -> Any:  # noqa: ANN401 - whatever stands in the file
    """A probe's mapping, with the settings of its kind sampled when it has targets. Raises TemplateError.

    `fields` are the keys that belong to every kind.
    """
    if not isinstance(probe, Mapping) or probe.get("targets") is None:
        return probe
    kinds = {key: value for key, value in probe.items() if key not in fields}
    if not has_holes(kinds):
        raise TemplateError("targets, and no {target}, {host} or {port} in what is probed; expected one of them")
    return {key: sampled(value) if key in kinds else value for key, value in probe.items()}


def _filled(node: object, fill: Callable[[str, str], object], key: str) -> object:
    """A copy, each text replaced; `key` is that of the mapping around it, also of one further out for lists."""
    if isinstance(node, Mapping):
        inside = {name: key if key.endswith(("_file", "_files")) else str(name) for name in node}
        return {name: _filled(value, fill, inside[name]) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_filled(value, fill, key) for value in node]
    return fill(key, node) if isinstance(node, str) else node


def _parts(address: str) -> tuple[str | None, str | None]:
    """(host, port) of `host:port`, `[::1]:port`, a host or a URL; None for what it has not."""
    if "://" in address:
        try:
            parts = urlsplit(address)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        except ValueError:
            return None, None
        return parts.hostname, None if port is None else str(port)
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        return None, None
    return found["v6"] or found["host"], found["port"]


def _given(part: str | None, name: str, address: str) -> str:
    if part is None:
        raise TemplateError(f"{address!r} has no {name}; expected host:port")
    return part


def _piece(name: str, host: str | None, port: str | None, address: str) -> str:
    """What goes into the middle of a text, such as a URL: never more than a host and a port."""
    if name == "port":
        return _given(port, "port", address)
    shown = _given(host, "host", address)
    shown = f"[{shown}]" if ":" in shown else shown
    if name == "host" or port is None:
        return shown
    if "://" in address:
        raise TemplateError(f"{address!r} is a URL; expected host:port where {{target}} is part of a text")
    return f"{shown}:{port}"
