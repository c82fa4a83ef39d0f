"""Which kinds of probes there are: built-in ones, imported when asked for, and those of installed plugins."""

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from agents.probes.base import ProbeKind

ENTRY_POINTS = "fleetbeat.probes"

_BUILT_IN = {name: f"agents.probes.{name}" for name in ("disk", "dns", "http", "icmp", "process", "tcp", "tls")}


class UnknownKindError(ValueError):
    """No built-in kind and no installed plugin has this name."""


class PluginError(ValueError):
    """An installed plugin cannot be used; the message names its distribution."""


def probe_kind(name: str) -> ProbeKind[Any]:
    """The kind of this name; imports its module and no other. Raises UnknownKindError, PluginError."""
    if name in _BUILT_IN:
        kind: ProbeKind[Any] = import_module(_BUILT_IN[name]).KIND
        return kind
    plugins = [entry for entry in entry_points(group=ENTRY_POINTS) if entry.name == name]
    if not plugins:
        raise UnknownKindError(f"probe kind {name!r}; expected one of: {', '.join(probe_kind_names())}")
    if len(plugins) > 1:
        offered = " and ".join(sorted(_origin(entry) for entry in plugins))
        raise PluginError(f"probe kind {name!r} is offered by {offered}; expected one: uninstall the other")
    return _load(plugins[0])


def probe_kind_names() -> list[str]:
    """Names of every kind, without importing any."""
    return sorted(_BUILT_IN.keys() | entry_points(group=ENTRY_POINTS).names)


def probe_kinds() -> dict[str, ProbeKind[Any]]:
    """Every kind by name, all of them imported. Raises PluginError, also for a plugin named like a built-in kind."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in _BUILT_IN:
            raise PluginError(f"{_origin(entry)}: probe kind {entry.name!r} is built in; expected another name")
    return {name: probe_kind(name) for name in probe_kind_names()}


def _load(entry: EntryPoint) -> ProbeKind[Any]:
    try:
        kind = entry.load()
    except Exception as cause:  # a plugin may raise anything at all
        raise PluginError(
            f"{_origin(entry)}: probe kind {entry.name!r} cannot be loaded from {entry.value}: {cause!r}"
        ) from cause
    if not isinstance(kind, ProbeKind) or kind.name != entry.name:
        raise PluginError(f"{_origin(entry)}: {entry.value} is {kind!r}; expected ProbeKind(name={entry.name!r}, …)")
    return kind


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed distribution"
