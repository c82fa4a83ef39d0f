"""`make faults`: every row of the fault matrix with seeds drawn now, each judged by the exact oracle, and a table."""

import argparse
import json
import random
import shutil
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.faults.driver.rows import ROWS
from tests.faults.driver.stand import Form, Stand

FOLDER = Path(".fleetbeat/faults")
HEAD = ("row", "fault", "kills", "events", "lost", "doubled", "recovery s", "verdict", "seed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one row; `faults` are sentences, none when it was exact."""

    row: int
    title: str
    seed: int
    kills: int
    events: int
    lost: int
    doubled: int
    recovery_s: float
    faults: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = "exact" if not self.faults else "FAILED"
        figures = (self.kills, self.events, self.lost, self.doubled, f"{self.recovery_s:.1f}", verdict, self.seed)
        return (str(self.row), self.title, *map(str, figures))


def run_row(row: int, seed: int, form: Form, folder: Path) -> Outcome:
    """One run; its folder is kept when something is wrong, and says what."""
    begun = time.monotonic()
    place = folder / f"row-{row:02}-seed-{seed}"
    print(f"row {row}: {ROWS[row].title}; seed {seed}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    busy = replace(form, results_per_s=form.results_per_s * ROWS[row].busier)
    stand = Stand(place, seed, busy, say=lambda line: print(line, flush=True))
    recovery_s, events, lost, doubled, faults = 0.0, 0, 0, 0, tuple[str, ...]()
    try:
        with stand:
            ROWS[row].scenario(stand)
            recovery_s = stand.await_fresh()
            stand.some_time(1, 4)
            judgement = stand.judge()
        events, faults = judgement.events, judgement.faults
        lost, doubled = judgement.balance.lost, judgement.balance.doubled
    except Exception as cause:  # noqa: BLE001 - whatever it is, the other rows go on
        (place / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        faults = (*stand.faults, f"could not be judged: {type(cause).__name__}: {cause}")
    outcome = Outcome(row, ROWS[row].title, seed, stand.kills, events, lost, doubled, recovery_s, faults)
    _settle_folder(outcome, place)
    print(f"  {'exact' if not faults else 'FAILED'} after {time.monotonic() - begun:.0f} s", flush=True)
    return outcome


def _settle_folder(outcome: Outcome, place: Path) -> None:
    if not outcome.faults:
        shutil.rmtree(place)
        return
    (place / "outcome.json").write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
    for fault in outcome.faults:
        print(f"  {fault}")
    print(f"  logs and ledgers: {place}")
    print(f"  again: {sys.executable} -m tests.faults.run --row {outcome.row} --seed {outcome.seed}", flush=True)


def table(outcomes: list[Outcome]) -> str:
    rows = [HEAD, *(outcome.cells for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Exit status: 0 when every run was exact, 1 when one was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    parser.add_argument("--row", type=int, action="append", choices=sorted(ROWS), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, help="this seed instead of three drawn ones")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds are drawn for each row (3)")
    parser.add_argument("--rate", type=int, default=3_000, help="probe results a second (3000)")
    parser.add_argument("--nodes", type=int, default=300, help="heartbeats a second (300)")
    parser.add_argument(
        "--visible", type=float, default=10, help="seconds until a fresh event must be in the views (10)"
    )
    parser.add_argument("--short", action="store_true", help="fewer faults, as in CI")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where failed runs are kept ({FOLDER})")
    asked = parser.parse_args()
    draw = random.SystemRandom()
    form = Form(asked.nodes, asked.rate, long=not asked.short, visible_s=asked.visible)
    outcomes = [
        run_row(row, seed, form, asked.folder)
        for row in asked.row or sorted(ROWS)
        for seed in ([asked.seed] if asked.seed is not None else [draw.randrange(1 << 32) for _ in range(asked.seeds)])
    ]
    print(f"\n{table(outcomes)}")
    return 1 if any(outcome.faults for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
