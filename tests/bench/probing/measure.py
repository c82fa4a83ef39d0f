"""What is measured of a prober, the same for all of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many at once flat out, how many a second at a pace, and how long targets take there."""

    warm_s: float = 3.0
    flat_s: float = 8.0
    paced_s: float = 10.0
    at_once: int = 64
    rate_per_s: int = 400
    delay_ms: int = 10


@dataclass(frozen=True, slots=True)
class Flat:
    """Probes that were up, and those that were not, in a while of one core that was never idle."""

    probes: int
    down: int
    wall_s: float
    cpu_s: float
    rss_mb: float

    @property
    def per_s(self) -> float:
        """By the clock."""
        return self.probes / self.wall_s

    @property
    def per_core_s(self) -> float:
        """For each second of processor time of the prober's process."""
        return self.probes / self.cpu_s


@dataclass(frozen=True, slots=True)
class Paced:
    """What the prober adds to what it measures (µs, ascending), at a pace, and its share of a core meanwhile.

    `unpaired`: measured of targets that answered another number of requests, as when a machine with too much to do
    makes probes give up.
    """

    overheads_us: Sequence[int]
    cores: float
    unpaired: int

    @classmethod
    def of(cls, latencies_us: Mapping[int, Sequence[int]], took_us: Mapping[int, Sequence[int]], cores: float) -> Self:
        """Of measured latencies and the targets' own times, both by target, in order. Raises ValueError."""
        overheads, unpaired = [], 0
        for number, measured in latencies_us.items():
            own = took_us.get(number, ())
            if len(measured) <= len(own) <= len(measured) + 1:  # one may be cut off by the end
                overheads += [latency - took for latency, took in zip(measured, own, strict=False)]
            else:
                unpaired += len(measured)
        if not overheads:
            raise ValueError(f"{unpaired} probes of {len(latencies_us)} targets, none of them as the targets have it")
        return cls(sorted(overheads), cores, unpaired)

    def at(self, share: float) -> int:
        """The overhead that so large a share of probes does not exceed."""
        return self.overheads_us[min(len(self.overheads_us) - 1, int(len(self.overheads_us) * share))]


@dataclass(frozen=True, slots=True)
class Prober:
    """All runs of one prober."""

    flat: Sequence[Flat]
    paced: Sequence[Paced]

    def figures(self) -> dict[str, object]:
        """Medians over the runs."""
        return {
            "probes_per_core_s": round(self.per_core_s),
            "probes_per_core_s_runs": [round(run.per_core_s) for run in self.flat],
            "probes_per_s": round(statistics.median(run.per_s for run in self.flat)),
            "cpu_us_per_probe": round(1e6 / self.per_core_s),
            "down": sum(run.down for run in self.flat),
            "busy_rss_mb": statistics.median(run.rss_mb for run in self.flat),
            "overhead_p50_us": round(statistics.median(run.at(0.5) for run in self.paced)),
            "overhead_p99_us": round(self.overhead_p99_us),
            "overhead_p99_us_runs": [run.at(0.99) for run in self.paced],
            "unpaired": sum(run.unpaired for run in self.paced),
            "paced_cores": round(statistics.median(run.cores for run in self.paced), 3),
        }

    @property
    def per_core_s(self) -> float:
        """Probes for a second of processor time."""
        return statistics.median(run.per_core_s for run in self.flat)

    @property
    def overhead_p99_us(self) -> float:
        """At the pace."""
        return statistics.median(run.at(0.99) for run in self.paced)
