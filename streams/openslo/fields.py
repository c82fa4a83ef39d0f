"""What every OpenSLO document is made of: names, durations, and refusals that say what was expected."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.alias_generators import to_camel

from schemas.documents import UNION_TAG
from schemas.rules import MAX_NAME_BYTES
from streams.core.slices import is_slice

_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SHORTEST_S, _LONGEST_S = 10, 30 * 86_400
_MOST_PERIODS = {"d": 31, "w": 4, "M": 1}


def refused(why: str) -> BeforeValidator:
    """A field that is known and not supported: `why` says what instead."""

    def refuse(_: object) -> None:
        raise ValueError(why)

    return BeforeValidator(refuse)


def not_yet(instead: str) -> BeforeValidator:
    """A field that will be supported."""
    return refused(f"not supported yet; expected {instead}")


def one_of(*supported: str) -> BeforeValidator:
    """The values that are supported, of those that OpenSLO knows."""

    def check(value: object) -> object:
        if value not in supported:
            raise ValueError(f"not supported; expected {' or '.join(supported)}")
        return value

    return BeforeValidator(check)


def required_true(meaning: str) -> AfterValidator:
    """A flag that has to be set."""

    def check(value: bool) -> bool:  # noqa: FBT001 - it is what stood in the file
        if not value:
            raise ValueError(f"not supported yet; expected true: {meaning}")
        return value

    return AfterValidator(check)


def single(value: list[Any]) -> list[Any]:
    """A list that OpenSLO allows one item in."""
    if len(value) != 1:
        raise ValueError(f"{len(value)} items; expected exactly one")
    return value


def some(value: list[Any]) -> list[Any]:
    """A list that may not be empty."""
    if not value:
        raise ValueError("expected at least one item")
    return value


def duration(value: str) -> str:
    """10s to 30d; `s` is our addition to OpenSLO."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([A-Za-z])", value)
    if match and match[2] in "MQY":
        raise ValueError("months, quarters and years do not roll; expected s, m, h, d or w, as in 30d")
    if not match or match[2] not in _UNIT_S:
        raise ValueError("expected a whole number and s, m, h, d or w, as in 30d")
    if not _SHORTEST_S <= seconds(value) <= _LONGEST_S:
        raise ValueError("expected 10s to 30d")
    return value


def period(value: str) -> str:
    """How often a calendar's window begins anew."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([A-Za-z])", value)
    if match and match[2] in "smh":
        raise ValueError("shorter than a day; expected d, w or M, as in 1M for a month")
    if not match or match[2] not in "dwMQY":
        raise ValueError("expected a whole number and d, w or M, as in 1M for a month")
    if int(match[1]) > _MOST_PERIODS.get(match[2], 0):
        raise ValueError("longer than the 35 days that hours are kept for; expected at most 31d, 4w or 1M")
    return value


def slice_s(value: object) -> object:
    """The length of time slices in seconds; a number without a unit is minutes."""
    if isinstance(value, int) and not isinstance(value, bool):
        length = value * 60
    elif isinstance(value, str):
        length = seconds(duration(value))
    else:
        return value
    if not is_slice(length):
        raise ValueError("expected whole minutes that six hours are a multiple of, as in 1m, 5m or 1h")
    return length


def seconds(duration: str) -> int:
    """The length of a valid duration."""
    return int(duration[:-1]) * _UNIT_S[duration[-1]]


def between(low: int, high: int) -> Callable[[float], float]:
    """A number with both bounds left out."""

    def check(value: float) -> float:
        if not low < value < high:
            raise ValueError(f"expected a number above {low} and below {high}")
        return value

    return check


def name(value: str) -> str:
    """A name that fits into a record."""
    if not 1 <= len(value.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"expected 1 to {MAX_NAME_BYTES} bytes")
    return value


def dns_label(value: str) -> str:
    """A name as RFC 1123 has it."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError("expected a DNS label: 1 to 63 of a-z, 0-9 and -, the first and last not -")
    return value


Name = Annotated[str, AfterValidator(name)]
Description = Annotated[str, Field(max_length=1050)]


class Own(BaseModel):
    """What fleetbeat puts where OpenSLO leaves the form to each tool."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OpenSlo(BaseModel):
    """What OpenSLO says, under its names: github.com/OpenSLO/OpenSLO, README.md of v1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Metadata(OpenSlo):
    """What a document is called."""

    name: Annotated[str, AfterValidator(dns_label)]
    display_name: Name | None = None
    labels: dict[str, str | list[str]] = {}
    annotations: dict[str, str] = {}


def either(key: str, ref: type[BaseModel], inline: type[BaseModel]) -> Any:  # noqa: ANN401 - an annotation for pydantic
    """`ref` when the mapping has its only key, else `inline`: so that an error is about what somebody meant."""

    def pick(value: Any) -> str:  # noqa: ANN401 - YAML is any structure
        found = key in value if isinstance(value, dict) else isinstance(value, ref)
        return f"{UNION_TAG}ref" if found else f"{UNION_TAG}inline"

    branches = (Annotated[ref, Tag(f"{UNION_TAG}ref")], Annotated[inline, Tag(f"{UNION_TAG}inline")])
    return Annotated[Union[branches], Discriminator(pick)]  # noqa: UP007 - of values, not of names
