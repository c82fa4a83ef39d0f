"""What a new config changes for an agent that runs: which probes go on, and what only a restart can bring. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from pydantic import BaseModel

from agents.config import ProbeSpec

# What a running agent takes over from a new file; whatever else differs waits for a restart.
LIVE = frozenset(
    {"node.region", "node.zone", "node.labels", "heartbeat", "metrics", "workers", "queue", "trace", "probes"},
)
# Built from the settings: two of them are never equal.
_BUILT = "probe"


@dataclass(frozen=True, slots=True)
class Change:
    """From the probes of before to those of a new config.

    `places` are all that are to run, in the order of the config: unchanged ones at the place they had, with the probe
    they had; the others at new places. `successors` says which place a changed one takes over: new to old.
    """

    places: Mapping[int, ProbeSpec]
    successors: Mapping[int, int]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def unchanged(self) -> int:
        """How many go on as if nothing had happened."""
        return len(self.places) - len(self.added) - len(self.changed)


def compare(before: Mapping[int, ProbeSpec], after: Sequence[ProbeSpec], free: int) -> Change:
    """`before` by place; places from `free` on were never used. Keys are unique in both."""
    known = {spec.key: place for place, spec in before.items()}
    places: dict[int, ProbeSpec] = {}
    successors: dict[int, int] = {}
    added, changed = [], []
    for spec in after:
        place = known.pop(spec.key, None)
        if place is not None and _same(before[place], spec):
            places[place] = before[place]
            continue
        if place is None:
            added.append(spec.key)
        else:
            changed.append(spec.key)
            successors[free] = place
        places[free] = spec
        free += 1
    return Change(places, successors, tuple(added), tuple(changed), tuple(known))


def needs_restart(running: BaseModel, wanted: BaseModel, prefix: str = "") -> Iterator[str]:
    """Names of the fields, dotted, whose values differ and that cannot change while an agent runs."""
    for name in type(wanted).model_fields:
        place = prefix + name
        old, new = getattr(running, name), getattr(wanted, name)
        if place in LIVE or old == new:
            continue
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from needs_restart(old, new, f"{place}.")
        else:
            yield place


def _same(old: ProbeSpec, new: ProbeSpec) -> bool:
    if old is new:
        return True
    if old.settings is None:  # nobody can say what it was built from
        return old == new
    return all(getattr(old, field.name) == getattr(new, field.name) for field in fields(old) if field.name != _BUILT)
