"""`make faults`: every row of the fault matrix with seeds drawn now, each judged by the exact oracle, and a table."""

import argparse
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.faults.driver.archive_stand import ArchiveStand
from tests.faults.driver.capacity import measure
from tests.faults.driver.collector_stand import CollectorStand, SplitStand
from tests.faults.driver.jobs import run_jobs
from tests.faults.driver.outcome import Outcome, table, write
from tests.faults.driver.rows import AGENT_ROWS, ROWS, TOGETHER, Row
from tests.faults.driver.stand import Form, Stand

FOLDER = Path(".fleetbeat/faults")
# What a row is done to: worker and archive, or the agent. Some numbers have a scenario of each.
STREAM, AGENT = "stream", "agent"
STANDS: dict[str, Any] = {"worker": Stand, "archive": ArchiveStand, "agent": CollectorStand, "split": SplitStand}


def _row(row: int, of: str) -> Row:
    return (AGENT_ROWS if of == AGENT else ROWS)[row]


# Two at once end together when the long rows do not come last.
LONGEST_FIRST = sorted(
    ((row, of) for of, rows in ((STREAM, ROWS), (AGENT, AGENT_ROWS)) for row in rows.keys() - {TOGETHER}),
    key=lambda run: -_row(*run).takes_s,
)


def run_row(row: int, seed: int, form: Form, folder: Path, capacity: int | None = None, of: str = STREAM) -> Outcome:
    """One run; its folder is kept when something is wrong, and says what.

    `capacity` is what worker and archive take in a second; it is measured when the row asks for half of it.
    """
    begun = time.monotonic()
    chosen = _row(row, of)
    place = folder / f"row-{row:02}{'-agent' if of == AGENT else ''}-seed-{seed}"
    print(f"row {row}: {chosen.title}; seed {seed}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    if chosen.at_half_capacity and form.long:
        capacity = capacity or measure(place.with_name(f"{place.name}-capacity"), form, _say)
        form = replace(form, results_per_s=capacity // 2)
    stand = STANDS[chosen.of](place, seed, form, _say)
    recovery_s, events, lost, doubled, faults = 0.0, 0, 0, 0, tuple[str, ...]()
    try:
        with stand:
            chosen.scenario(stand)
            recovery_s = stand.await_fresh()
            stand.some_time(1, 4)
            judgement = stand.judge()
        events, faults = judgement.events, judgement.faults
        lost, doubled = judgement.balance.lost, judgement.balance.doubled
    except Exception as cause:  # noqa: BLE001 - whatever it is, the other rows go on
        (place / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        faults = (*stand.faults, f"could not be judged: {type(cause).__name__}: {cause}")
    took_s = round(time.monotonic() - begun)
    figures = (stand.kills, events, lost, doubled, recovery_s, form.results_per_s, took_s)
    outcome = Outcome(row, chosen.title, seed, *figures, faults)
    _settle_folder(outcome, place, of)
    _say(f"  {'exact' if not faults else 'FAILED'} after {took_s} s")
    return outcome


def _say(line: str) -> None:
    print(line, flush=True)


def _settle_folder(outcome: Outcome, place: Path, of: str) -> None:
    if not outcome.faults:
        shutil.rmtree(place)
        return
    (place / "outcome.json").write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
    for fault in outcome.faults:
        print(f"  {fault}")
    print(f"  logs and ledgers: {place}")
    which = f"--row {outcome.row} --of {of} --seed {outcome.seed}"
    print(f"  again: {sys.executable} -m tests.faults.run {which}", flush=True)


def main() -> int:
    """Exit status: 0 when every run was exact, 1 when one was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    numbers = sorted(ROWS | AGENT_ROWS)
    parser.add_argument("--row", type=int, action="append", choices=numbers, help="only this one; may be repeated")
    parser.add_argument("--of", choices=[STREAM, AGENT], help="only rows of worker and archive, or of the agent (both)")
    parser.add_argument("--seed", type=int, help="this seed instead of three drawn ones")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds are drawn for each row (3)")
    parser.add_argument("--rate", type=int, default=3_000, help="probe results a second (3000)")
    parser.add_argument("--nodes", type=int, default=300, help="heartbeats a second (300)")
    parser.add_argument(
        "--visible", type=float, default=10, help="seconds until a fresh event must be in the views (10)"
    )
    parser.add_argument("--short", action="store_true", help="fewer faults, as in CI")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where failed runs are kept ({FOLDER})")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (1)")
    parser.add_argument("--out", type=Path, action="append", default=[], help="also write the table: .md, else JSON")
    parser.add_argument(
        "--capacity", type=int, help="results/s that worker and archive take, else measured (row 13 sends half)"
    )
    asked = parser.parse_args()
    os.environ["RUST_BACKTRACE"] = "0"  # as in the Makefile: one for each poisoned record takes seconds
    draw = random.SystemRandom()
    # Round by round: two runs of one row are seldom beside each other.
    runs = [
        (row, of, draw.randrange(1 << 32) if asked.seed is None else asked.seed)
        for _ in range(1 if asked.seed is not None else asked.seeds)
        for row, of in _wanted(asked.row, asked.of)
    ]
    outcomes = sorted(_outcomes(runs, asked), key=lambda outcome: outcome.row)
    print(f"\n{table(outcomes)}")
    for path in asked.out:
        write(outcomes, path)
    return 1 if any(outcome.faults for outcome in outcomes) else 0


def _wanted(rows: list[int] | None, of: str | None) -> list[tuple[int, str]]:
    """What to run, longest first; row 0 only when it is asked for."""
    every = [*LONGEST_FIRST, *([(TOGETHER, STREAM)] if rows else [])]
    return [run for run in every if (rows is None or run[0] in rows) and of in (None, run[1])]


def _outcomes(runs: Sequence[tuple[int, str, int]], asked: argparse.Namespace) -> list[Outcome]:
    if asked.jobs > 1:
        shared = ("rate", "nodes", "visible", "folder", "capacity")
        given = {name: getattr(asked, name) for name in shared if getattr(asked, name) is not None}
        options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return run_jobs(runs, asked.jobs, [*options, *(["--short"] if asked.short else [])])
    form = Form(asked.nodes, asked.rate, long=not asked.short, visible_s=asked.visible)
    return [run_row(row, seed, form, asked.folder, asked.capacity, of) for row, of, seed in runs]


if __name__ == "__main__":
    sys.exit(main())
