"""The objectives file: OpenSLO v1 documents → objectives. What cannot be done yet is refused by name, not ignored."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from schemas.documents import DocumentError, parse, position, read_all
from streams.core.burn import BurnRule, recommended_rules
from streams.core.objectives import Objective, Selector
from streams.openslo import promises
from streams.openslo.alerts import AlertCondition, AlertPolicy, PolicyRef, contradictions, rule_of
from streams.openslo.slo import IndicatorSpec, Service, Sli, Slo

Model = Slo | Sli | Service | AlertPolicy | AlertCondition
ModelT = TypeVar("ModelT", Slo, Sli, Service, AlertPolicy, AlertCondition)

_KINDS: dict[str, type[Model]] = {
    "SLO": Slo,
    "SLI": Sli,
    "Service": Service,
    "AlertPolicy": AlertPolicy,
    "AlertCondition": AlertCondition,
}
_LATER_KINDS = ("AlertNotificationTarget", "DataSource")


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
    for document, sli in file.of(Sli).values():
        file.problems += [document.place(*each) for each in promises.indicator_contradictions(sli.spec, ("spec",))]
    objectives = [each for document, slo in file.of(Slo).values() for each in _objectives(file, document, slo)]
    if not file.problems and not objectives:
        file.problems.append(f"{path}: no document of kind SLO; expected at least one")
    if file.problems:
        raise DocumentError(list(dict.fromkeys(file.problems)))
    return tuple(objectives)


def _read(path: str) -> _File:
    file = _File()
    for source in _sources(path):
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


def _sources(path: str) -> Iterator[Any]:
    """Every document of a file; one that is a list holds several."""
    for document in read_all(path):
        if isinstance(document, list) and document:
            yield from document
        else:
            yield document


def _kind(document: Any, name: str) -> str:  # noqa: ANN401 - YAML is any structure
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind in _KINDS:
        return kind
    line, column = position(document, ("kind",))
    said = "missing" if kind is None else f"value {kind!r}: not supported" + (" yet" if kind in _LATER_KINDS else "")
    raise DocumentError(
        [f"{name}:{line}:{column}: kind: {said}; expected {', '.join(list(_KINDS)[:-1])} or AlertCondition"]
    )


def _objectives(file: _File, document: _Document, slo: Slo) -> Iterator[Objective]:
    """The objectives of an SLO; none when something is wrong with it, which is then among the file's problems."""
    spec = slo.spec
    problems = [document.place(*problem) for problem in promises.contradictions(slo)]
    indicator = _indicator(file, document, slo, problems)
    file.problems += problems
    if problems or indicator is None:
        return
    counted = promises.counted(indicator)
    where = counted.where
    window_s, calendar = promises.window_of(slo)
    for promise in promises.promises_of(slo):
        if spec.alert_policies is None:
            rules = recommended_rules(window_s, promise.target)
        else:
            rules = tuple(_rules(file, document, slo, promise.target, window_s))
        yield Objective(
            id=promise.id,
            service=spec.service,
            display_name=promise.display_name,
            selector=Selector(where.service, where.endpoint, where.region, where.kind),
            latency_us_le=counted.latency_us_le,
            target=promise.target,
            window_s=window_s,
            rules=rules,
            source=counted.source,
            time_slices=promise.time_slices,
            calendar=calendar,
        )


def _indicator(file: _File, document: _Document, slo: Slo, problems: list[str]) -> IndicatorSpec | None:
    """The SLO's own or the SLI it refers to; what is wrong with either is among the problems, its own or the file's."""
    spec = slo.spec
    if spec.indicator is not None:
        path = ("spec", "indicator", "spec")
        problems += [document.place(*each) for each in promises.indicator_contradictions(spec.indicator.spec, path)]
        return spec.indicator.spec
    known = file.of(Sli)
    if spec.indicator_ref is None or spec.indicator_ref in known:
        found = known.get(spec.indicator_ref or "")
        broken = found is None or any(promises.indicator_contradictions(found[1].spec, ()))
        return None if found is None or broken else found[1].spec
    sentence = f"value {spec.indicator_ref!r}: no SLI of that name; expected one of {sorted(known)}"
    problems.append(document.place(("spec", "indicatorRef"), sentence))
    return None


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
