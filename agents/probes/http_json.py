"""What is expected of a JSON body: values at a path, compared as JSON compares them."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from agents.probes.base import Settings
from agents.probes.json_path import JsonPath, TooManyNodesError, json_path
from agents.probes.regex import Regex, Text, compiled

MAX_JSON_BYTES = 4 << 20
_SHOWN = 60

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
Number = StrictInt | StrictFloat


def _is_path(text: str) -> str:
    json_path(text)
    return text


class JsonExpected(Settings):
    """Every value at `path` has to be as given, and there have to be `min_count` to `max_count` of them.

    `equals` compares as JSON does: 1 is 1.0, and neither true nor "1". `min_count` is 1, and 0 where `max_count` is 0.
    """

    path: Annotated[str, AfterValidator(_is_path)]
    equals: Scalar = None
    not_equals: Scalar = None
    contains: Text | None = None
    regex: Regex | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    min_count: Annotated[int, Field(ge=0)] | None = None
    max_count: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.max_count is not None and self.max_count < self.least:
            raise ValueError(f"max_count {self.max_count}; expected at least min_count, {self.least}")
        return self

    @property
    def least(self) -> int:
        """How many values have to be there."""
        if self.min_count is None:
            return 0 if self.max_count == 0 else 1
        return self.min_count


@dataclass(frozen=True, slots=True)
class _Check:
    expected: JsonExpected
    path: JsonPath
    regex: Any  # RE2's pattern; it ships no types


class JsonJudge:
    """Compares JSON bodies with what is expected of them."""

    def __init__(self, expected: tuple[JsonExpected, ...]) -> None:
        self._checks = [
            _Check(one, json_path(one.path), None if one.regex is None else compiled(one.regex)) for one in expected
        ]

    def complaint(self, body: bytes | bytearray) -> str | None:
        """What is not as expected, first of all; None when all is."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as cause:
            return f"no JSON: {cause}; it begins with {bytes(body[:40])!r}"
        for check in self._checks:
            try:
                values = check.path.select(document)
            except TooManyNodesError as cause:
                return f"{check.expected.path} {cause}"
            if complaint := _count_complaint(check.expected, len(values)):
                return complaint
            for value in values:
                if wanted := _wanted(check, value):
                    return f"{check.expected.path} is {_shown(value)}; expected {wanted}"
        return None


def _count_complaint(expected: JsonExpected, count: int) -> str | None:
    if count < expected.least:
        found = "is not there" if count == 0 else f"selects {count} values"
        return f"{expected.path} {found}; expected at least {expected.least}"
    if expected.max_count is not None and count > expected.max_count:
        return f"{expected.path} selects {count} values; expected at most {expected.max_count}"
    return None


def _wanted(check: _Check, value: Any) -> str | None:  # noqa: ANN401 - JSON is any structure
    """What it should have been; None when it is."""
    one = check.expected
    given = one.model_fields_set
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    rules = (
        ("equals" in given and not _same(value, one.equals), f"{_shown(one.equals)}"),
        ("not_equals" in given and _same(value, one.not_equals), f"anything but {_shown(one.not_equals)}"),
        (one.contains is not None and not _has(value, one.contains), f"{one.contains!r} in it"),
        (
            check.regex is not None and not (isinstance(value, str) and check.regex.search(value)),
            f"a text that {one.regex!r} matches",
        ),
        (one.at_least is not None and (number is None or number < one.at_least), f"at least {one.at_least}"),
        (one.at_most is not None and (number is None or number > one.at_most), f"at most {one.at_most}"),
    )
    return next((wanted for broken, wanted in rules if broken), None)


def _same(value: Any, other: Scalar) -> bool:  # noqa: ANN401 - JSON is any structure
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _has(value: Any, text: str) -> bool:  # noqa: ANN401 - JSON is any structure
    """A text has a part, a list a member."""
    return (isinstance(value, str) and text in value) or (isinstance(value, list) and text in value)


def _shown(value: Any) -> str:  # noqa: ANN401 - JSON is any structure
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
