"""How one objective stands: its windows, what is left of its budget, and its burn rules, from the tables."""

from collections.abc import Collection
from dataclasses import dataclass

from streams.core.burn import BurnState, Counted, burn_states
from streams.core.history import History, SliceCount
from streams.core.objectives import Budget, Objective, TimeSlices, budget
from streams.core.past import Past
from streams.core.slices import COUNTS, Tier
from streams.core.summaries import Shown
from streams.core.windows import Summary, Window, current, sliding

# Shown as far as they are shorter than the objective's own.
STANDARD_WINDOWS_S = (10, 60, 300, 3_600, 21_600, 86_400, 604_800)
# Of a worker that is so far behind at most, windows are whole from their beginning on.
BEHIND_MS = 60_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Windows in ascending length, the objective's own last.

    `slices`: for time slices those of each window. `share`: of the budget of the own window, what could have been
    spent by now. `left_s`: until the calendar's period ends. `burns`: the rules as they are at `judged_to_ms`.
    """

    windows: tuple[tuple[Window, Summary], ...]
    slices: tuple[SliceCount, ...]
    share: float
    left_s: int | None
    burns: tuple[BurnState, ...]

    def budgets(self, target: float) -> tuple[Budget, ...]:
        """Of each window; of the own one as of the whole of it."""
        counts = [(each.total, each.good) for each in self.slices or (summary for _, summary in self.windows)]
        return tuple(
            budget(total, good, target, self.share if place == len(counts) - 1 else 1.0)
            for place, (total, good) in enumerate(counts)
        )


def shown_windows(objective: Objective, now_ms: int) -> tuple[Window, ...]:
    """The standard ones and the objective's own. Raises ZoneInfoNotFoundError."""
    lengths = [length for length in STANDARD_WINDOWS_S if length < objective.window_s]
    own = current(objective.calendar, now_ms) if objective.calendar else sliding(objective.window_s, now_ms)
    return (*(sliding(length, now_ms) for length in lengths), own)


def reach_of(objective: Objective, since_s: int, now_ms: int) -> dict[Tier, int]:
    """The first second of each tier that is read at `now_ms` or later, of those before `since_s`.

    Raises ZoneInfoNotFoundError.
    """
    # Rules are judged up to where all is known, which is a little earlier.
    windows = (*shown_windows(objective, now_ms), *_judged_windows(objective, now_ms - BEHIND_MS).values())
    found: dict[Tier, int] = {}
    for window in windows:
        if window.start_s < since_s:
            found[window.tier] = min(found.get(window.tier, window.start_s), window.start_s)
    if objective.time_slices:
        earliest_s = min(now_ms // 1_000 - objective.window_s, *(window.start_s for window in windows))
        # As many slices as cover a window, up to the last one that is over; which is the first may lie further back.
        if earliest_s - 2 * objective.time_slices.length_s < since_s:
            found[COUNTS] = (now_ms // 1_000 - COUNTS.keep_s) // COUNTS.step_s * COUNTS.step_s
    return found


def figures(  # noqa: PLR0913 - of what, when, and what is known of it
    objective: Objective,
    table: Shown,
    series: Collection[int],
    now_ms: int,
    judged_to_ms: int,
    past: Past | None = None,
) -> Figures:
    """`series`: of the versions that judged events of these windows. Until `judged_to_ms` all is known; 0 is nothing.

    `past`: what was before all of them. Raises NotCaughtUpError and ZoneInfoNotFoundError.
    """
    windows = shown_windows(objective, now_ms)
    judged = _judged_windows(objective, judged_to_ms)
    history = History(table, series, past)
    slices: tuple[SliceCount, ...] = ()
    share, left_s = 1.0, None
    own, now_s = windows[-1], now_ms // 1_000
    if objective.calendar:
        left_s = own.start_s + own.window_s - now_s
        share = (now_s + 1 - own.start_s) / own.window_s
    if objective.time_slices:
        slices = tuple(_slices(history, objective.time_slices, window, now_s) for window in windows[:-1])
        own_slices, share = _own_slices(history, objective, own, now_s)
        slices = (*slices, own_slices)
    return Figures(
        windows=tuple((window, history.summary(window)) for window in windows),
        slices=slices,
        share=share,
        left_s=left_s,
        burns=_burns(objective, history, judged, judged_to_ms // 1_000),
    )


def _judged_windows(objective: Objective, judged_to_ms: int) -> dict[int, Window]:
    """Those of the rules by length, and the longest for what is usual, in whole seconds that are complete.

    Part of a second's events are nothing to wake somebody by.
    """
    if not judged_to_ms or not objective.rules:
        return {}
    lengths = {length for rule in objective.rules for length in (rule.long_s, rule.short_s)}
    return {length: sliding(length, judged_to_ms - 1_000) for length in sorted({*lengths, objective.window_s})}


def _burns(
    objective: Objective, history: History, windows: dict[int, Window], judged_to_s: int
) -> tuple[BurnState, ...]:
    if not windows:
        return ()
    if objective.time_slices:
        length_s = objective.time_slices.length_s
        found = {s: _slices(history, objective.time_slices, window, judged_to_s) for s, window in windows.items()}
        counted = {s: Counted(each.total * length_s, each.total, each.good) for s, each in found.items()}
        return burn_states(objective.rules, counted, counted[objective.window_s], objective.target)
    sums = {s: history.summary(window) for s, window in windows.items()}
    counted = {s: Counted(s, summary.total, summary.good) for s, summary in sums.items()}
    own, summary = windows[objective.window_s], sums[objective.window_s]
    usual = Counted(own.end_s - (summary.first_s or own.start_s), summary.total, summary.good)
    return burn_states(objective.rules, counted, usual, objective.target)


def _slices(history: History, slices: TimeSlices, window: Window, now_s: int) -> SliceCount:
    """The last slices that are over, as many as cover the window."""
    end_s = now_s // slices.length_s * slices.length_s
    return history.slices(slices, end_s - -(-window.window_s // slices.length_s) * slices.length_s, end_s)


def _own_slices(history: History, objective: Objective, own: Window, now_s: int) -> tuple[SliceCount, float]:
    """Those of the objective's window, and which share they are of all that will be in it.

    A period of a calendar has the slices that begin in it.
    """
    slices = objective.time_slices
    assert slices is not None  # noqa: S101 - for the type
    if objective.calendar is None:
        found = _slices(history, slices, own, now_s)
        return found, found.total * slices.length_s / (found.end_s - found.start_s)
    start_s, whole_end_s = (
        -(-at_s // slices.length_s) * slices.length_s for at_s in (own.start_s, own.start_s + own.window_s)
    )
    found = history.slices(slices, start_s, max(start_s, now_s // slices.length_s * slices.length_s))
    return found, found.total * slices.length_s / (whole_end_s - start_s)
