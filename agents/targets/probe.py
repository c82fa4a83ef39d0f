"""One configured probe with targets, and the probe that is made of it for each of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agents.probes.base import ProbeKind
from agents.targets.groups import MAX_LABELS, Target
from agents.targets.settings import TargetsFile
from agents.targets.template import TemplateError, filled

if TYPE_CHECKING:
    from agents.config import ProbeSpec


@dataclass(frozen=True, slots=True)
class TargetedProbe:
    """`sample` is the probe as the config has it, for a target that stands for all; `template` its kind's settings."""

    sample: "ProbeSpec"
    kind: ProbeKind[Any]
    template: object
    targets: TargetsFile

    @property
    def name(self) -> str:
        """As in the config."""
        return self.sample.name

    def is_as(self, other: "TargetedProbe") -> bool:
        """Whether both make the same probes of the same targets."""
        return (
            self.template == other.template
            and self.targets == other.targets
            and replace(self.sample, probe=other.sample.probe) == other.sample
        )

    def spec(self, target: Target) -> "ProbeSpec":
        """The probe of one target, which is its endpoint. Raises TemplateError when it does not fit the settings."""
        try:
            settings = self.kind.config.model_validate(filled(self.template, target.address))
        except ValidationError as cause:
            (first, *_) = cause.errors(include_url=False, include_input=False)
            raise TemplateError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from cause
        labels = {label.key: label for label in (*self.sample.labels, *target.labels)}
        if len(labels) > MAX_LABELS:
            raise TemplateError(f"{len(labels)} labels with those of the probe; expected at most {MAX_LABELS}")
        return replace(
            self.sample,
            endpoint=target.address,
            target=target.address,
            labels=tuple(labels.values()),
            settings=settings,
            probe=self.kind.build(settings),
        )

    def misfits(self) -> Iterator[tuple[int, str]]:
        """(place, why) of those in the config's own list that do not fit."""
        for place, address in enumerate(self.targets.list):
            try:
                self.spec(Target(address))
            except ValueError as cause:
                yield place, str(cause)
