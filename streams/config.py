"""The objectives file: OpenSLO v1 documents → objectives. What cannot be done yet is refused by name, not ignored."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from schemas.buckets import BOUNDS_US, bucket_of, is_bound
from schemas.documents import DocumentError, parse, position, read_all
from streams.core.burn import BurnRule, recommended_rules
from streams.core.objectives import Objective, Selector
from streams.core.sources import COUNTS
from streams.openslo.alerts import AlertCondition, AlertPolicy, PolicyRef, contradictions, rule_of
from streams.openslo.fields import seconds
from streams.openslo.slo import Good, Service, Slo

Model = Slo | Service | AlertPolicy | AlertCondition
ModelT = TypeVar("ModelT", Slo, Service, AlertPolicy, AlertCondition)

_KINDS: dict[str, type[Model]] = {
    "SLO": Slo,
    "Service": Service,
    "AlertPolicy": AlertPolicy,
    "AlertCondition": AlertCondition,
}
_LATER_KINDS = ("AlertNotificationTarget", "DataSource", "SLI")
_GOOD = ("spec", "indicator", "spec", "ratioMetric", "good", "metricSource", "spec")
_GOOD_WHERE = (*_GOOD, "where")


@dataclass(frozen=True, slots=True)
class _Document:
    """A document that is well-formed by itself; `place` puts a sentence where it belongs in the file."""

    path: str
    source: Any
    model: Model

    def place(self, path: tuple[Any, ...], sentence: str) -> str:
        line, column = position(self.source, path)
        return f"{self.path}:{line}:{column}: {'.'.join(map(str, path))}: {sentence}"

    @property
    def line(self) -> int:
        return position(self.source, ("metadata", "name"))[0]


@dataclass(slots=True)
class _File:
    """All documents of a file by kind and name, and what is wrong with it."""

    documents: dict[tuple[str, str], _Document] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def of(self, kind: type[ModelT]) -> dict[str, tuple[_Document, ModelT]]:
        """The documents of a kind, by name, in the file's order."""
        return {
            name: (document, document.model)
            for (_, name), document in self.documents.items()
            if isinstance(document.model, kind)
        }


def load_objectives(path: Path | str) -> tuple[Objective, ...]:
    """The objectives of a file, in its order. Raises DocumentError with every problem in it."""
    file = _read(str(path))
    for document, condition in file.of(AlertCondition).values():
        file.problems += [document.place(*problem) for problem in contradictions(condition)]
    objectives = [_objective(file, document, slo) for document, slo in file.of(Slo).values()]
    if not file.problems and not objectives:
        file.problems.append(f"{path}: no document of kind SLO; expected at least one")
    if file.problems:
        raise DocumentError(file.problems)
    return tuple(each for each in objectives if each is not None)


def _read(path: str) -> _File:
    file = _File()
    for source in read_all(path):
        try:
            kind = _kind(source, path)
            document = _Document(path, source, parse(source, _KINDS[kind], path))
        except DocumentError as error:
            file.problems += error.problems
            continue
        name = document.model.metadata.name
        first = file.documents.setdefault((kind, name), document)
        if first is not document:
            sentence = f"value {name!r}: the {kind} in line {first.line} has that name; expected one of its own"
            file.problems.append(document.place(("metadata", "name"), sentence))
    return file


def _kind(document: Any, name: str) -> str:  # noqa: ANN401 - YAML is any structure
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind in _KINDS:
        return kind
    line, column = position(document, ("kind",))
    said = "missing" if kind is None else f"value {kind!r}: not supported" + (" yet" if kind in _LATER_KINDS else "")
    raise DocumentError(
        [f"{name}:{line}:{column}: kind: {said}; expected {', '.join(list(_KINDS)[:-1])} or AlertCondition"]
    )


def _objective(file: _File, document: _Document, slo: Slo) -> Objective | None:
    """The objective of an SLO; None when something is wrong with it, which is then among the file's problems."""
    spec = slo.spec
    problems = [document.place(*problem) for problem in _contradictions(slo)]
    file.problems += problems
    if problems:
        return None
    metric = spec.indicator.spec.ratio_metric.good.metric_source.spec
    where = metric.where
    asked = spec.objectives[0]
    # In decimals, as 99.95 / 100 is not 0.9995 in binary.
    share = Decimal(str(asked.target)) if asked.target is not None else Decimal(str(asked.target_percent or 0)) / 100
    target, window_s = float(share), seconds(spec.time_window[0].duration)
    if spec.alert_policies is None:
        rules = recommended_rules(window_s, target)
    else:
        rules = tuple(_rules(file, document, slo, target, window_s))
    return Objective(
        id=slo.metadata.name,
        service=spec.service,
        display_name=slo.metadata.display_name or slo.metadata.name,
        selector=Selector(where.service, where.endpoint, where.region, where.kind),
        latency_us_le=metric.latency_us_le,
        target=target,
        window_s=window_s,
        rules=rules,
        source=metric.source,
    )


def _contradictions(slo: Slo) -> Iterator[tuple[tuple[Any, ...], str]]:
    """What each field allows but not all of them together."""
    metric = slo.spec.indicator.spec.ratio_metric
    good, total = metric.good.metric_source.spec, metric.total.metric_source.spec
    if good.where != total.where:
        said, wanted = (metric.where.model_dump(exclude_none=True) for metric in (good, total))
        yield _GOOD_WHERE, f"value {said}: expected the same as under total, {wanted}"
    if good.source != total.source:
        yield (*_GOOD, "source"), f"value {good.source!r}: expected the same as under total, {total.source!r}"
    elif good.source == COUNTS:
        yield from _uncountable(good)
    asked = slo.spec.objectives[0]
    if (asked.target is None) == (asked.target_percent is None):
        which = "neither" if asked.target is None else "both"
        yield ("spec", "objectives", 0), f"{which} of target and targetPercent; expected one of them"


def _uncountable(good: Good) -> Iterator[tuple[tuple[Any, ...], str]]:
    """What cannot be asked of requests that a service has counted."""
    if good.where.kind is not None:
        sentence = f"value {good.where.kind!r}: request-counts have no kind; expected service, endpoint or region"
        yield (*_GOOD_WHERE, "kind"), sentence
    limit = good.latency_us_le
    if limit is not None and not is_bound(limit):
        above = bucket_of(limit)
        sentence = (
            f"value {limit}: requests are counted by buckets, so it would be exact at the bound of one only; "
            f"expected {BOUNDS_US[above - 1]} or {BOUNDS_US[above]}"
        )
        yield (*_GOOD, "latency_us_le"), sentence


def _rules(file: _File, document: _Document, slo: Slo, target: float, window_s: int) -> Iterator[BurnRule]:
    """The rules of an SLO's policies; what is wrong with one goes to the file's problems."""
    for number, policy in enumerate(slo.spec.alert_policies or ()):
        path: tuple[Any, ...] = ("spec", "alertPolicies", number)
        found, condition = _condition(file, policy)
        if condition is None:
            file.problems.append(document.place(path, found))
            continue
        if isinstance(policy, AlertPolicy):  # a condition of its own document has been looked at there
            file.problems += [document.place(path, sentence) for _, sentence in contradictions(condition)]
        rule = rule_of(condition)
        if rule.long_s > window_s:
            sentence = f"{found}: lookbackWindow of {rule.long_s} s; expected at most the SLO's window, {window_s} s"
            file.problems.append(document.place(path, sentence))
        elif not rule.can_fire(target):
            fastest = float(1 / (1 - Decimal(str(target))))
            sentence = (
                f"{found}: threshold {rule.factor:g} is never exceeded: with target {target:g} the budget burns "
                f"{fastest:.6g} times as fast as it lasts when every event is bad; expected less"
            )
            file.problems.append(document.place(path, sentence))
        else:
            yield rule


def _condition(file: _File, policy: PolicyRef | AlertPolicy) -> tuple[str, AlertCondition | None]:
    """What the policy is called, and its condition; or what is missing, and None."""
    if isinstance(policy, PolicyRef):
        name = policy.alert_policy_ref
        known = file.of(AlertPolicy)
        if name not in known:
            return f"value {name!r}: no AlertPolicy of that name; expected one of {sorted(known)}", None
        policy = known[name][1]
    condition = policy.spec.conditions[0]
    if isinstance(condition, AlertCondition):
        return f"AlertPolicy {policy.metadata.name!r}", condition
    conditions = file.of(AlertCondition)
    if condition.condition_ref not in conditions:
        sentence = f"AlertPolicy {policy.metadata.name!r}: no AlertCondition {condition.condition_ref!r}"
        return f"{sentence}; expected one of {sorted(conditions)}", None
    return f"AlertPolicy {policy.metadata.name!r}", conditions[condition.condition_ref][1]
