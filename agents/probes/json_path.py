"""The part of JSONPath (RFC 9535) that takes time linear in the document: names, indexes and wildcards.

A stranger's document decides how long `..` and filters take: one filter of a well-kept library computes for 0.8 s on
8 KB, on the event loop, where no deadline ends it. So those are refused when the config is loaded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_PATH = 1_024
MAX_STEPS = 32
MAX_NODES = 10_000

_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)   # .name
    |\[(?P<index>0|-?[1-9]\d{0,8})\]                            # [0], [-1]
    |(?P<every>\.\*|\[\*\])                                     # .*, [*]
    |\['(?P<single>(?:[^'\\]|\\['\\])*)'\]                       # ['any name']
    |\["(?P<double>(?:[^"\\]|\\["\\])*)"\]                       # ["any name"]
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")


class TooManyNodesError(ValueError):
    """A path selects more than MAX_NODES values of a document."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """`steps`: a name, an index (negative: from the end), or None for every child."""

    steps: tuple[str | int | None, ...]

    def select(self, document: Any) -> list[Any]:  # noqa: ANN401 - JSON is any structure
        """The values there, in the order of the document; none when there are none. Raises TooManyNodesError."""
        found = [document]
        for step in self.steps:
            after: list[Any] = []
            for node in found:
                after.extend(_children(node, step))
                if len(after) > MAX_NODES:
                    raise TooManyNodesError(f"selects more than {MAX_NODES} values")
            found = after
        return found


def json_path(text: str) -> JsonPath:
    """What the text says. Raises ValueError."""
    steps: list[str | int | None] = []
    end = 1
    while len(text) <= MAX_PATH and text.startswith("$") and end < len(text) and (step := _STEP.match(text, end)):
        steps.append(_meaning(step))
        end = step.end()
    if not text.startswith("$") or end != len(text) or len(steps) > MAX_STEPS:
        rest = text[end:] if text.startswith("$") else text
        raise ValueError(
            f"not understood from {rest[:20]!r} on; expected $, then .name, ['name'], [0], [-1], [*] or .*, "
            f"{MAX_STEPS} at most: filters, slices and .. can take too long"
        )
    return JsonPath(tuple(steps))


def _meaning(step: "re.Match[str]") -> str | int | None:
    if step["every"]:
        return None
    if step["index"]:
        return int(step["index"])
    quoted = step["single"] if step["single"] is not None else step["double"]
    return str(step["name"]) if quoted is None else _ESCAPED.sub(r"\1", quoted)


def _children(node: Any, step: str | int | None) -> Iterator[Any]:  # noqa: ANN401 - JSON is any structure
    if isinstance(node, dict):
        if step is None:
            yield from node.values()
        elif isinstance(step, str) and step in node:
            yield node[step]
    elif isinstance(node, list):
        if step is None:
            yield from node
        elif isinstance(step, int) and -len(node) <= step < len(node):
            yield node[step]
