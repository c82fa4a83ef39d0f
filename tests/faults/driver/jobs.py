"""Several runs at once: each is this program again, with one row and one seed, in a process of its own."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.driver.outcome import Outcome


def run_jobs(runs: Sequence[tuple[int, str, int]], jobs: int, options: Sequence[str]) -> list[Outcome]:
    """Outcomes of all (row, of what, seed), in their order; so many at once. Ctrl-C reaches all, they clean up."""
    printing = threading.Lock()

    def run(place: int, row: int, of: str, seed: int) -> list[Outcome]:
        out = Path(folder) / f"{place}.json"
        asked = ["--row", str(row), "--of", of, "--seed", str(seed), "--out", str(out)]
        command = [sys.executable, "-m", "tests.faults.run", *asked]
        with subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                with printing:
                    print(f"{row:>2}/{seed:<10} {line}", end="", flush=True)
        if out.exists():
            return Outcome.read(out)
        return [Outcome(row, "", seed, 0, 0, 0, 0, 0.0, 0, 0, (f"the run ended with status {child.returncode}",))]

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(run, range(len(runs)), *zip(*runs, strict=True)))
    return [outcome for outcomes in found for outcome in outcomes]
