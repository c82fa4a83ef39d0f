"""Looks for targets again and again, and makes a probe of each; what cannot be asked now keeps what it had."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agents.clock import Clock
from agents.config import ProbeSpec
from agents.targets.groups import Found, Target
from agents.targets.probe import TargetedProbe
from agents.targets.sources import DiscoveryError, Source, sources_of

# Building a probe takes some 50 µs: others get their turn in between.
_AT_ONCE = 50

log = logging.getLogger(__name__)


@dataclass(slots=True)
class DiscoveryFigures:
    """How the search for one probe's targets fares; `refused` ones are among what was found last, and unusable."""

    targets: int = 0
    refused: int = 0
    refreshes: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Search:
    """One probe, where its targets come from, what each source said last, and the probes made of that."""

    probe: TargetedProbe
    sources: Sequence[Source]
    said: dict[int, Found] = field(default_factory=dict)
    specs: dict[Target, ProbeSpec] = field(default_factory=dict)
    is_stale: bool = False
    """The probes are those of a config before: they run until new ones have taken their place."""
    figures: DiscoveryFigures = field(default_factory=DiscoveryFigures)
    task: "asyncio.Task[None] | None" = None


class Discovery:
    """The probes of all targets; `changed` is called, without waiting, each time they are others."""

    def __init__(
        self,
        probes: Sequence[TargetedProbe],
        changed: Callable[[], object],
        clock: Clock,
        sources: Callable[[TargetedProbe], Sequence[Source]] = lambda probe: sources_of(probe.targets),
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._sources = sources
        self._searches = [_Search(probe, sources(probe)) for probe in probes]
        self._group: asyncio.TaskGroup | None = None

    @property
    def specs(self) -> tuple[ProbeSpec, ...]:
        """A probe a target. One that was there before is the same object."""
        return tuple(spec for search in self._searches for spec in search.specs.values())

    def figures(self) -> dict[str, DiscoveryFigures]:
        """By the name of the probe."""
        return {search.probe.name: search.figures for search in self._searches}

    async def run(self) -> None:
        """Looks until cancelled, for each probe at its own times; the first time at once."""
        forever = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as self._group:
                for search in self._searches:
                    self._start(search)
                await forever.wait()
        finally:
            self._group = None

    async def run_once(self) -> None:
        """Looks once, and returns when all have answered or failed."""
        async with asyncio.TaskGroup() as group:
            for search in self._searches:
                group.create_task(self._refresh(search))

    def change(self, probes: Sequence[TargetedProbe]) -> None:
        """Goes on with these; one that is as before keeps its targets, and a new one has none until they are found."""
        before = {search.probe.name: search for search in self._searches}
        searches = []
        for probe in probes:
            known = before.get(probe.name)
            if known is not None and known.probe.is_as(probe):
                searches.append(before.pop(probe.name))
                continue
            searches.append(_Search(probe, self._sources(probe)))
            if known is not None and known.probe.targets == probe.targets:  # the same targets, another probe for them
                searches[-1].said, searches[-1].specs, searches[-1].is_stale = known.said, known.specs, True
        for gone in before.values():
            if gone.task is not None:
                gone.task.cancel()
        self._searches = searches
        if self._group is not None:
            for search in searches:
                if search.task is None:
                    self._start(search)

    def _start(self, search: _Search) -> None:
        assert self._group is not None  # noqa: S101 - asked for by both callers
        search.task = self._group.create_task(self._keep_looking(search), name=f"targets of {search.probe.name}")

    async def _keep_looking(self, search: _Search) -> None:
        while True:
            if await self._refresh(search):
                self._changed()
            await self._clock.sleep(search.probe.targets.refresh_s)

    async def _refresh(self, search: _Search) -> bool:
        """Asks all sources at once; whether the probes are others now."""
        found = await asyncio.gather(*map(self._ask, search.sources))
        search.figures.refreshes += 1
        for place, one in enumerate(found):
            if isinstance(one, Found):
                search.said[place] = one
            else:
                search.figures.failures += 1
                extra = {"probe": search.probe.name, "source": search.sources[place].name, "reason": str(one)}
                log.warning("targets cannot be found; those found before stay", extra=extra)
        targets = {target.address: target for said in search.said.values() for target in said.targets}
        refused = [text for said in search.said.values() for text in said.refused]
        most = search.probe.targets.max_targets
        if len(targets) > most:
            search.figures.failures += 1
            which = {"probe": search.probe.name, "targets": len(targets), "max_targets": most}
            log.warning("too many targets; those found before stay", extra=which)
            return False
        return await self._build(search, list(targets.values()), refused)

    async def _ask(self, source: Source) -> Found | DiscoveryError:
        try:
            return await source.find()
        except DiscoveryError as cause:
            return cause

    async def _build(self, search: _Search, targets: Sequence[Target], refused: list[str]) -> bool:
        specs: dict[Target, ProbeSpec] = {}
        known = {} if search.is_stale else search.specs
        for place, target in enumerate(targets):
            if target in known:
                specs[target] = known[target]
                continue
            try:
                specs[target] = search.probe.spec(target)
            except ValueError as cause:
                refused.append(f"{target.address!r}: {cause}")
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if refused and len(refused) != search.figures.refused:
            which = {"probe": search.probe.name, "targets": len(refused), "first": refused[0][:300]}
            log.warning("targets that cannot be used", extra=which)
        search.figures.targets, search.figures.refused = len(specs), len(refused)
        changed = search.is_stale or specs.keys() != search.specs.keys()
        search.specs, search.is_stale = specs, False
        return changed
