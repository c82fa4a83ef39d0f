"""The drill-down queries of infra/clickhouse/queries: what each answers, and which parameters it takes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files

_PARAMETERS = "Parameters:"
_PARAMETER = re.compile(r"(?P<name>\w+)\s+(?P<kind>.+?)(?:\s+= (?P<default>\S+))?(?:\s{2,}(?P<says>.+))?")
_OF_TIME = re.compile(r"\{\s*(?P<name>\w+)\s*:\s*(Nullable\()?(?P<kind>DateTime(64)?)\b")
_AGE = re.compile(r"-(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class LibraryError(ValueError):
    """No such query, or a parameter that it does not take, needs, or cannot read."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query. `kind` is ClickHouse's type; without a default it has to be given."""

    name: str
    kind: str
    default: str | None
    says: str

    def read(self, text: str, now: datetime) -> str:
        """The value as ClickHouse reads it: a time may also be `now`, an age such as -15m, or ISO 8601 with a zone."""
        if not self.kind.startswith("DateTime"):
            return text
        try:
            at = read_time(text, now).astimezone(UTC)
        except (ValueError, OverflowError):
            raise LibraryError(
                f"parameter {self.name}: value {text!r}; expected a time such as 2026-03-02T10:00:00Z, "
                "an age such as -15m, or now"
            ) from None
        return at.replace(tzinfo=None).isoformat(" ", "milliseconds")


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """One file: its first sentence, the rest of its header, its parameters and its statement."""

    name: str
    answers: str
    about: str
    parameters: tuple[Parameter, ...]
    sql: str

    def fill(self, given: Mapping[str, str], now: datetime) -> dict[str, str]:
        """A value for every parameter. Raises LibraryError."""
        known = {parameter.name for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise LibraryError(
                    f"query {self.name}: no parameter {name!r}; expected one of: {', '.join(sorted(known))}"
                )
        values = {}
        for parameter in self.parameters:
            value = given.get(parameter.name, parameter.default)
            if value is None:
                raise LibraryError(
                    f"query {self.name}: parameter {parameter.name} ({parameter.kind}) is missing; "
                    f"expected --param {parameter.name}=VALUE"
                )
            values[parameter.name] = parameter.read(value, now)
        since, until = values.get("since", ""), values.get("until", "")
        if since > until:
            raise LibraryError(f"query {self.name}: since {since} until {until}: expected a time, and a later one")
        return values


def fill(sql: str, given: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Values for a statement of one's own: times as the library takes them, as seconds since 1970, so in any zone.

    What is no such time goes to ClickHouse as it is.
    """
    times = {found["name"]: found["kind"] for found in _OF_TIME.finditer(sql)}
    return {name: _seconds(text, times[name], now) if name in times else text for name, text in given.items()}


def _seconds(text: str, kind: str, now: datetime) -> str:
    try:
        at = read_time(text, now)
    except (ValueError, OverflowError):
        return text
    return f"{at.timestamp():.3f}" if kind == "DateTime64" else str(int(at.timestamp()))


def library() -> dict[str, NamedQuery]:
    """All queries by name."""
    folder = files("infra") / "clickhouse" / "queries"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))
    queries = (parse(entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")) for entry in found)
    return {query.name: query for query in sorted(queries, key=lambda query: query.name)}


def find(name: str) -> NamedQuery:
    """One of them; `-` may be written for `_`. Raises LibraryError."""
    queries = library()
    if query := queries.get(name.replace("-", "_")):
        return query
    raise LibraryError(f"no query {name!r}; expected one of: {', '.join(queries)}")


def parse(name: str, text: str) -> NamedQuery:
    """A file of the library. Raises ValueError when its header is not as the others."""
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    header = [line.removeprefix("--").strip() for line in lines[:end]]
    if _PARAMETERS not in header:
        raise ValueError(f"infra/clickhouse/queries/{name}.sql: no line `-- {_PARAMETERS}` at the top")
    split = header.index(_PARAMETERS)
    parameters = []
    for line in header[split + 1 :]:
        found = _PARAMETER.fullmatch(line)
        if found is None:
            raise ValueError(f"infra/clickhouse/queries/{name}.sql: {line!r}; expected NAME TYPE = DEFAULT   WORDS")
        default = "" if found["default"] == "''" else found["default"]
        parameters.append(Parameter(found["name"], found["kind"], default, found["says"] or ""))
    words = " ".join(header[:split]).strip()
    answers, _, about = words.partition(". ")
    return NamedQuery(name, answers.rstrip("."), about.strip(), tuple(parameters), "\n".join(lines[end:]).strip())


def read_time(text: str, now: datetime) -> datetime:
    """`now`, an age such as -15m, or a time of ISO 8601, UTC unless it says otherwise. Raises ValueError."""
    if text == "now":
        return now
    if age := _AGE.fullmatch(text):
        return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=at.tzinfo or UTC)
