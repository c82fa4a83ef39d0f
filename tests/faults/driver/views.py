"""The views of several workers as one: whoever keeps a partition answers for it, the others refuse."""

import urllib.parse
from dataclasses import dataclass, fields
from typing import Any

from infra.oracle.sources import SliceRow, UnavailableError, Views


@dataclass(frozen=True, slots=True)
class Sums:
    """One sliding window of an SLO, [from_ms, to_ms) of event time."""

    window_s: int
    from_ms: int
    to_ms: int
    total: int
    good: int
    sum_us: int
    max_us: int


@dataclass(frozen=True, slots=True)
class ManyViews(Views):
    """Asks each of `workers`; `base_url` is not used."""

    workers: tuple[Views, ...] = ()

    def slices(self, slo: str, from_ms: int, to_ms: int) -> dict[int, SliceRow]:
        """As Views has it. Raises UnavailableError also when two workers answer differently."""
        answers = []
        reasons = []
        for worker in self.workers:
            try:
                answers.append(worker.slices(slo, from_ms, to_ms))
            except UnavailableError as reason:
                reasons.append(str(reason))
        if not answers:
            raise UnavailableError(f"{slo}: nobody answers; {reasons}")
        if any(answer != answers[0] for answer in answers):
            raise UnavailableError(f"{slo}: {len(answers)} workers answer, each in its own way")
        return answers[0]

    def sums(self, slo: str) -> list[Sums]:
        """The sliding windows of an SLO. Raises UnavailableError."""
        answer = self._get(f"/api/v1/slos/{urllib.parse.quote(slo, safe='')}")
        return [Sums(*(row[field.name] for field in fields(Sums))) for row in answer["windows"]]

    def _get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        reasons = []
        for worker in self.workers:
            try:
                return worker._get(path)
            except UnavailableError as reason:
                reasons.append(str(reason))
        raise UnavailableError(f"{path}: nobody answers; {reasons}")


def many(urls: list[str]) -> ManyViews:
    return ManyViews("", workers=tuple(Views(url) for url in urls))
