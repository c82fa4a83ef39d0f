"""Whether an answer over HTTP is the expected one."""

import time
from collections.abc import Iterator

from agents.probes.base import Outcome
from agents.probes.http_answer import HttpAnswer
from agents.probes.http_json import JsonJudge
from agents.probes.http_settings import Expected
from agents.probes.regex import compiled
from agents.probes.watch import ProbeInvalidError, Watch

_MS_PER_DAY = 86_400_000


class Judge:
    """Compares answers with what is expected of them."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        ranges = [str(text).partition("-") for text in expected.status]
        self._statuses = [range(int(low), int(high or low) + 1) for low, _, high in ranges]
        self._contains = (expected.body_contains or "").encode()
        self._headers = {name: compiled(regex) for name, regex in expected.header_regex.items()}
        self._regex = None if expected.body_regex is None else compiled(expected.body_regex)
        self._not_regex = None if expected.body_not_regex is None else compiled(expected.body_not_regex)
        self._json = JsonJudge(expected.body_json) if expected.body_json else None

    @property
    def needs_body(self) -> bool:
        """Whether it looks into bodies at all."""
        return bool(self._contains) or any((self._regex, self._not_regex, self._json))

    def outcome(self, answer: HttpAnswer, watch: Watch) -> Outcome:
        """Up, or Down by the first validator that says no."""
        for refusal in self._refusals(answer, watch):
            return watch.invalid(refusal.reason, str(refusal))
        return watch.up()

    def _refusals(self, answer: HttpAnswer, watch: Watch) -> Iterator[ProbeInvalidError]:
        """In the order in which docs/probes.md lists them."""
        spent_ms = watch.spent_us / 1_000  # before anything is looked at: the service's time, not ours
        if not any(answer.status in statuses for statuses in self._statuses):
            expected = ", ".join(map(str, self._expected.status))
            yield ProbeInvalidError("status", f"{answer.status}; expected {expected}")
        yield from self._of_headers(answer)
        yield from self._of_body(answer)
        if self._json is not None and (complaint := self._json.complaint(answer.body)):
            yield ProbeInvalidError("json", complaint)
        limit_ms = self._expected.max_latency_ms
        if limit_ms is not None and spent_ms > limit_ms:
            yield ProbeInvalidError("latency", f"{spent_ms:.1f} ms; expected at most {limit_ms:g}")
        least_days = self._expected.min_valid_days
        if least_days is not None and watch.cert_expires_ms is not None:
            days = (watch.cert_expires_ms - time.time() * 1_000) / _MS_PER_DAY
            if days < least_days:
                detail = f"valid for {days:.1f} days; expected {least_days:g}"
                yield ProbeInvalidError("certificate-expires", detail)

    def _of_headers(self, answer: HttpAnswer) -> Iterator[ProbeInvalidError]:
        for name, text in self._expected.headers.items():
            value = answer.headers.get(name.lower())
            if value is None or text not in value:
                yield ProbeInvalidError("header", f"{name}: {value!r}; expected {text!r} in it")
        for name, pattern in self._headers.items():
            value = answer.headers.get(name.lower())
            if value is None or pattern.search(value) is None:
                regex = self._expected.header_regex[name]
                yield ProbeInvalidError("header", f"{name}: {value!r}; expected what {regex!r} matches")

    def _of_body(self, answer: HttpAnswer) -> Iterator[ProbeInvalidError]:
        expected, size = self._expected, len(answer.body)
        if self._contains and self._contains not in answer.body:
            yield ProbeInvalidError("body", f"{expected.body_contains!r} is not in its {size} bytes")
        if self._regex is None and self._not_regex is None:
            return
        text = answer.body.decode("utf-8", "replace")
        if self._regex is not None and self._regex.search(text) is None:
            yield ProbeInvalidError("body", f"{expected.body_regex!r} matches nothing in its {size} bytes")
        if self._not_regex is not None and self._not_regex.search(text) is not None:
            detail = f"{expected.body_not_regex!r} matches in its {size} bytes; expected that it does not"
            yield ProbeInvalidError("body", detail)
