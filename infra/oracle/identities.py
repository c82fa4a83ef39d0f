"""Exactly once: the ids that were sent against the ids that a table holds."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# An id is `node_id TAB boot_id TAB seq` in UTF-8, which is what a SELECT of the three columns answers line by line.
Id = bytes


@dataclass(frozen=True, slots=True)
class Census:
    """How a table differs from what was sent; the examples are the first ids in order."""

    rows: int
    missing: int
    doubled: int
    foreign: int
    examples: tuple[str, ...]


def compare(sent: frozenset[Id], stored: Iterable[Id], examples: int = 3) -> Census:
    """`doubled` counts rows beyond the first of an id that was sent; `foreign` counts rows of ids that were not."""
    counts = Counter(stored)
    missing = sent - counts.keys()
    doubled = {each: count - 1 for each, count in counts.items() if count > 1 and each in sent}
    foreign = {each: count for each, count in counts.items() if each not in sent}
    named = [
        f"{finding} {each.decode(errors='replace').replace(chr(9), ' ')}"
        for finding, ids in (("missing", missing), ("doubled", doubled), ("foreign", foreign))
        for each in sorted(ids)[:examples]
    ]
    return Census(counts.total(), len(missing), sum(doubled.values()), sum(foreign.values()), tuple(named))
