"""One topic with live traffic, in several fills, and what was sent as the ledgers have it."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from infra.local.children import fleetbeat
from infra.oracle.ledger import RESULT
from tests.bench.contest.windows import Windows, recompute

NODES = 2_000
_ENDPOINTS = 5


@dataclass(frozen=True, slots=True)
class Fill:
    """Probe results at `rate_per_s` for `seconds`, event time being the clock."""

    rate_per_s: int
    seconds: int


@dataclass(slots=True)
class Traffic:
    """A fleet over `pairs` (service, endpoint), one region and kind, so that a pair is one series everywhere."""

    brokers: str
    folder: Path
    pairs: int
    events: int = 0
    _ledgers: list[Path] = field(default_factory=list)

    def send(self, fill: Fill) -> None:
        """Paced as live traffic is, so that nothing is late that would not be."""
        script = self.folder / "script.yaml"
        script.write_text(json.dumps(_script(self.pairs)))
        ledger = self.folder / f"ledger-{len(self._ledgers)}"
        command = fleetbeat(
            *("simulate", "--brokers", self.brokers, "--script", script, "--ledger", ledger),
            *("--nodes", str(NODES), "--interval", "3600", "--seed", str(len(self._ledgers))),
            *("--rate", str(fill.rate_per_s), "--duration", str(fill.seconds)),
        )
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        self.events += int(json.loads(out.splitlines()[-1])["results"])
        self._ledgers.append(ledger)

    def expected(self) -> Windows:
        """The windows of all that was sent so far."""
        series = json.loads((self._ledgers[0] / "manifest.json").read_text())["series"]
        rows = np.concatenate([np.fromfile(ledger / "results.rows", RESULT) for ledger in self._ledgers])
        names = [f"{one['service']}\t{one['endpoint']}" for one in series]
        return recompute(
            names,
            rows["series"].astype(np.int64),
            rows["ts_ms"].astype(np.int64),
            rows["success"].astype(np.bool_),
            rows["latency_us"].astype(np.int64),
        )


def _script(pairs: int) -> dict[str, object]:
    """Medians from 15 to 90 ms, as services differ."""
    endpoints = [f"/api/v1/{number}" for number in range(_ENDPOINTS)]
    services = [
        {"name": f"service-{number:03d}", "endpoints": endpoints, "latency_ms": 15 * (1 + number % 6)}
        for number in range(pairs // _ENDPOINTS)
    ]
    return {"services": services, "regions": [{"name": "eu-1"}]}


def some_pairs(windows: Windows, count: int) -> Sequence[tuple[str, str]]:
    """So many (service, endpoint) that have events, spread evenly."""
    names = windows.totals.select(pl.col("pair").unique().sort()).to_series().to_list()
    return [tuple(name.split("\t", 1)) for name in names[:: max(1, len(names) // count)][:count]]
