"""Whether an answer over HTTP is the expected one."""

from agents.probes.base import Outcome
from agents.probes.http_answer import HttpAnswer
from agents.probes.http_settings import Expected, compiled
from agents.probes.watch import Watch


class Judge:
    """Compares answers with what is expected of them."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        ranges = [str(text).partition("-") for text in expected.status]
        self._statuses = [range(int(low), int(high or low) + 1) for low, _, high in ranges]
        self._contains = (expected.body_contains or "").encode()
        self._regex = None if expected.body_regex is None else compiled(expected.body_regex)

    @property
    def needs_body(self) -> bool:
        """Whether it looks into bodies at all."""
        return bool(self._contains) or self._regex is not None

    def outcome(self, answer: HttpAnswer, watch: Watch) -> Outcome:
        """Up, or Down with the first thing that is not as expected: status, header or body."""
        if not any(answer.status in statuses for statuses in self._statuses):
            expected = ", ".join(map(str, self._expected.status))
            return watch.down("status", f"{answer.status}; expected {expected}")
        for name, text in self._expected.headers.items():
            value = answer.headers.get(name.lower())
            if value is None or text not in value:
                return watch.down("header", f"{name}: {value!r}; expected {text!r} in it")
        if self._contains and self._contains not in answer.body:
            return watch.down("body", f"{self._expected.body_contains!r} is not in its {len(answer.body)} bytes")
        if self._regex is not None and self._regex.search(answer.body.decode("utf-8", "replace")) is None:
            return watch.down("body", f"{self._expected.body_regex!r} matches nothing in its {len(answer.body)} bytes")
        return watch.up()
