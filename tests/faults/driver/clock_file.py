"""How far an agent's time of day is off: a file that its composition root reads at each look at the clock."""

from pathlib import Path


class ClockFile:
    """Right at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.off(0)

    def off(self, by_ms: int) -> None:
        """From now on; replaced at once, so that nobody reads half of it."""
        begun = self.path.with_suffix(".new")
        begun.write_text(str(by_ms), encoding="ascii")
        begun.rename(self.path)
