"""Answers as JSON objects; pure."""

from typing import Any

from streams.core.burn import BurnState, worst
from streams.core.drill_down import next_queries
from streams.core.history import SliceCount
from streams.core.objectives import Budget, Objective, seconds_to_exhaustion
from streams.core.past import Past
from streams.core.standing import Figures
from streams.core.windows import Summary, Window
from streams.processors.queries import Completeness, Slices, Standing
from streams.processors.slo_recovery import PARTIALS

# `burn_rate` is that of the first window as long as this, and as a time slice.
_BURN_WINDOW_S = 60


def objective_payload(objective: Objective) -> dict[str, Any]:
    """What was promised."""
    slices, calendar = objective.time_slices, objective.calendar
    return {
        "id": objective.id,
        "service": objective.service,
        "display_name": objective.display_name,
        "target": objective.target,
        "window_s": objective.window_s,
        "latency_us_le": objective.latency_us_le,
        "version": objective.version,
        "budgeting": "Timeslices" if slices else "Occurrences",
        "time_slice": {"length_s": slices.length_s, "target": slices.target} if slices else None,
        "calendar": {"start": calendar.start, "zone": calendar.zone, "every": f"{calendar.count}{calendar.unit}"}
        if calendar
        else None,
    }


def standing_payload(standing: Standing, fresh: Completeness) -> dict[str, Any]:
    """How the promise is kept, window by window."""
    objective, found = standing.objective, standing.figures
    windows = _window_payloads(found, objective)
    shortest_s = max(_BURN_WINDOW_S, objective.time_slices.length_s if objective.time_slices else 0)
    own, fast = windows[-1], next((w for w in windows if w["window_s"] >= shortest_s), windows[-1])
    return {
        **objective_payload(objective),
        "versions": [{"version": each.version, "since_ms": each.since_s * 1000} for each in standing.versions],
        "history": _history_payload(standing.past),
        "attainment": own["attainment"],
        "budget_left": own["budget_left"],
        "burn_rate": fast["burn_rate"],
        "exhausted_in_s": fast["exhausted_in_s"],
        "burning": worst(found.burns) if standing.judged_to_ms else None,
        "burns": [_burn_payload(state) for state in found.burns],
        "judged_to_ms": standing.judged_to_ms,
        "windows": windows,
        "drill_down": _drill_down_payload(standing, fast),
        **_basis(standing.partition, standing.applied_offset, standing.sealed_to_ms, fresh),
    }


def slices_payload(slices: Slices, fresh: Completeness) -> dict[str, Any]:
    """Second by second; seconds without events are left out."""
    rows = [
        {
            "start_ms": step.start_s * 1000,
            **_summary_payload(step),
            "sealed": (step.start_s + 1) * 1000 <= slices.sealed_to_ms,
        }
        for step in slices.steps
    ]
    basis = _basis(slices.partition, slices.applied_offset, slices.sealed_to_ms, fresh)
    return {"id": slices.objective.id, "step_s": 1, "slices": rows, "history": _history_payload(slices.past), **basis}


def _history_payload(past: Past | None) -> dict[str, Any] | None:
    """What of the answer was not counted from the stream."""
    if past is None:
        return None
    return {
        "source": "clickhouse",
        "from_ms": past.from_s * 1000,
        "to_ms": past.since_s * 1000,
        "as_of_ms": past.as_of_ms,
    }


def _drill_down_payload(standing: Standing, window: dict[str, Any]) -> list[dict[str, Any]]:
    """What to ask the archive next: about the longest window of a rule that burns now, else about the last minutes."""
    burning = [state.rule.long_s for state in standing.figures.burns if state.firing]
    to_ms = window["to_ms"]
    from_ms = to_ms - max(burning) * 1000 if burning else window["from_ms"]
    queries = next_queries(standing.objective, from_ms, to_ms)
    return [{"query": query.name, "parameters": query.parameters, "command": query.command} for query in queries]


def _window_payloads(found: Figures, objective: Objective) -> list[dict[str, Any]]:
    budgets = found.budgets(objective.target)
    own_s, left = found.windows[-1][0].window_s, budgets[-1].budget_left
    slices = found.slices or (None,) * len(found.windows)
    payloads = []
    for (window, summary), count, each in zip(found.windows, slices, budgets, strict=True):
        lasts_s = seconds_to_exhaustion(left, each.burn_rate, own_s)
        if found.left_s is not None and lasts_s is not None and lasts_s > found.left_s:
            lasts_s = None  # there is a new budget before
        payloads.append(_window_payload(window, summary, count, each) | {"exhausted_in_s": lasts_s})
    return payloads


def _window_payload(window: Window, summary: Summary, slices: SliceCount | None, found: Budget) -> dict[str, Any]:
    counted = {} if slices is None else {"time_slices": _slices_payload(slices)}
    return {
        "window_s": window.window_s,
        "from_ms": window.start_s * 1000,
        "to_ms": window.end_s * 1000,
        **_summary_payload(summary),
        **counted,
        "attainment": found.attainment,
        "burn_rate": found.burn_rate,
        "budget_left": found.budget_left,
    }


def _slices_payload(slices: SliceCount) -> dict[str, int]:
    return {
        "from_ms": slices.start_s * 1000,
        "to_ms": slices.end_s * 1000,
        "total": slices.total,
        "good": slices.good,
    }


def _burn_payload(state: BurnState) -> dict[str, Any]:
    rule = state.rule
    return {
        "rule": rule.name,
        "severity": rule.severity,
        "factor": rule.factor,
        "long_s": rule.long_s,
        "short_s": rule.short_s,
        "long_burn_rate": state.long_burn,
        "short_burn_rate": state.short_burn,
        "firing": state.firing,
    }


def _summary_payload(summary: Summary) -> dict[str, Any]:
    return {
        "total": summary.total,
        "good": summary.good,
        "late": summary.late,
        "sum_us": summary.sum_us,
        "max_us": summary.max_us,
        "p50_us": _rounded(summary.p50_us),
        "p90_us": _rounded(summary.p90_us),
        "p99_us": _rounded(summary.p99_us),
    }


def _rounded(value_us: float | None) -> float | None:
    return None if value_us is None else round(value_us, 1)


def _basis(partition: int, applied_offset: int, sealed_to_ms: int, fresh: Completeness) -> dict[str, Any]:
    return {
        "complete_to_ms": fresh.complete_to_ms,
        "sealed_to_ms": sealed_to_ms,
        "staleness_ms": fresh.staleness_ms,
        "offsets": {PARTIALS: {str(partition): applied_offset}},
    }
