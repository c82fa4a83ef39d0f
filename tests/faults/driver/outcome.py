"""What a run came to, the table of many, and both as files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

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
    results_per_s: int
    took_s: int
    faults: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> list[Self]:
        """As `write` has written them to a .json file."""
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [cls(**{**row, "faults": tuple(row["faults"])}) for row in rows]

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = "exact" if not self.faults else "FAILED"
        figures = (self.kills, self.events, self.lost, self.doubled, f"{self.recovery_s:.1f}", verdict, self.seed)
        return (str(self.row), self.title, *map(str, figures))


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [HEAD, *(outcome.cells for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def write(outcomes: Sequence[Outcome], path: Path) -> None:
    """Markdown when the name ends in .md, else JSON."""
    if path.suffix == ".md":
        rows = [HEAD, ("---",) * len(HEAD), *(outcome.cells for outcome in outcomes)]
        text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    else:
        text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
