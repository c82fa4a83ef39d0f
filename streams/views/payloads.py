"""Answers as JSON objects; pure."""

from typing import Any

from streams.core.burn import BurnState, worst
from streams.core.objectives import Objective, budget, seconds_to_exhaustion
from streams.core.windows import Summary, Window
from streams.processors.queries import Completeness, Slices, Standing


def objective_payload(objective: Objective) -> dict[str, Any]:
    """What was promised."""
    return {
        "id": objective.id,
        "service": objective.service,
        "display_name": objective.display_name,
        "target": objective.target,
        "window_s": objective.window_s,
        "latency_us_le": objective.latency_us_le,
        "version": objective.version,
    }


def standing_payload(standing: Standing, fresh: Completeness) -> dict[str, Any]:
    """How the promise is kept, window by window."""
    objective = standing.objective
    windows = [_window_payload(window, summary, objective) for window, summary in standing.windows]
    own, shortest = windows[-1], windows[0]
    left = own["budget_left"]
    return {
        **objective_payload(objective),
        "versions": [{"version": each.version, "since_ms": each.since_s * 1000} for each in standing.versions],
        "attainment": own["attainment"],
        "budget_left": left,
        "burn_rate": shortest["burn_rate"],
        "exhausted_in_s": seconds_to_exhaustion(left, shortest["burn_rate"], objective.window_s),
        "burning": worst(standing.burns) if standing.judged_to_ms else None,
        "burns": [_burn_payload(state) for state in standing.burns],
        "judged_to_ms": standing.judged_to_ms,
        "windows": windows,
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
    return {"id": slices.objective.id, "step_s": 1, "slices": rows, **basis}


def _window_payload(window: Window, summary: Summary, objective: Objective) -> dict[str, Any]:
    standing = budget(summary.total, summary.good, objective.target)
    return {
        "window_s": window.window_s,
        "from_ms": window.start_s * 1000,
        "to_ms": window.end_s * 1000,
        **_summary_payload(summary),
        "attainment": standing.attainment,
        "burn_rate": standing.burn_rate,
        "budget_left": standing.budget_left,
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
        "offsets": {"slo-partials": {str(partition): applied_offset}},
    }
