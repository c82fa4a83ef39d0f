"""Which numbers of a spool have no record any more, so that nobody who gives records up counts them again. Pure."""


class Gaps:
    """A set of numbers as ranges. There are few: damage is rare, and what is settled is forgotten."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        """(first, behind the last), ascending, without overlap."""

    def add(self, begin: int, end: int) -> None:
        """Those from `begin` to before `end`; some may be in it already."""
        if begin >= end:
            return
        apart = [each for each in self._ranges if each[1] < begin or each[0] > end]
        touched = [each for each in self._ranges if not (each[1] < begin or each[0] > end)]
        begin, end = min([begin, *(each[0] for each in touched)]), max([end, *(each[1] for each in touched)])
        self._ranges = sorted([*apart, (begin, end)])

    def between(self, begin: int, end: int) -> int:
        """How many there are from `begin` to before `end`."""
        return sum(max(0, min(end, last) - max(begin, first)) for first, last in self._ranges)

    def forget_below(self, number: int) -> None:
        """Those that nobody asks for any more."""
        if self._ranges and self._ranges[0][0] < number:
            self._ranges = [(max(first, number), last) for first, last in self._ranges if last > number]
