"""Target groups as Prometheus writes them, in JSON or YAML. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.records import Label

MAX_ADDRESS = 255
MAX_LABELS = 32
MAX_VALUE_BYTES = 255
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")


class GroupsError(ValueError):
    """What was read is no list of target groups."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one probe of many asks: `host:port`, a host, or a URL; and what is said about it."""

    address: str
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Targets, and a sentence for each of those that cannot be used."""

    targets: tuple[Target, ...]
    refused: tuple[str, ...] = ()


def check_address(text: str) -> str:
    """The text, when it can be a target. Raises ValueError."""
    if not 1 <= len(text) <= MAX_ADDRESS or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:80]!r}; expected 1 to {MAX_ADDRESS} printable ASCII characters without blanks")
    return text


def targets_of(document: object) -> Found:
    """The targets of `[{"targets": [...], "labels": {...}}]`. Raises GroupsError when it has another shape.

    Labels that begin with `__` are between discovery and Prometheus, and not kept.
    """
    if not isinstance(document, list):
        raise GroupsError(f"{type(document).__name__}; expected a list of target groups")
    targets: dict[str, Target] = {}
    refused: list[str] = []
    for place, group in enumerate(document):
        addresses = group.get("targets") if isinstance(group, dict) else None
        if not isinstance(group, dict) or not isinstance(addresses, list):
            raise GroupsError(f"group {place}; expected a mapping with a list of targets")
        try:
            labels = _labels(group.get("labels") or {})
        except ValueError as cause:
            refused += [f"{address!r}: {cause}" for address in addresses]
            continue
        for address in addresses:
            try:
                targets[check_address(str(address))] = Target(str(address), labels)
            except ValueError as cause:
                refused.append(str(cause))
    return Found(tuple(targets.values()), tuple(refused))


def _labels(found: object) -> tuple[Label, ...]:
    """Raises ValueError."""
    if not isinstance(found, Mapping):
        raise ValueError(f"labels {type(found).__name__}; expected a mapping")  # noqa: TRY004 - told, not raised on
    labels = {str(key): str(value) for key, value in found.items() if not str(key).startswith("__")}
    if len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} labels; expected at most {MAX_LABELS}")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key) or not value.isprintable() or len(value.encode()) > MAX_VALUE_BYTES:
            raise ValueError(
                f"label {key[:80]!r}; expected a name of 63 characters and {MAX_VALUE_BYTES} bytes of text"
            )
    return tuple(Label(key, value) for key, value in labels.items() if value)
