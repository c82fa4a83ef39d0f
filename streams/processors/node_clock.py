"""The broker's clock as far as a consumer can know it, without trusting the clock of its own machine."""

from dataclasses import dataclass

# A clock that was set back is believed after this long at the latest.
_WINDOW_S = 60.0


@dataclass(slots=True)
class BrokerClock:
    """Append times of records against the time (monotonic, s) at which they were received here.

    A record was appended before it was received, so each of them says: the broker's clock is at least this far. The
    greatest of the last one to two minutes counts. It is behind by the fastest way from the log to here, never ahead.
    """

    _since_s: float = 0.0
    _now_ms: float | None = None  # greatest append time - receipt, of the window that began at `_since_s`
    _before_ms: float | None = None  # of the window before

    def received(self, append_ms: int, at_s: float) -> None:
        """A record that was appended at `append_ms` has come at `at_s`."""
        ahead_ms = append_ms - at_s * 1000
        if self._now_ms is None or at_s - self._since_s >= _WINDOW_S:
            self._before_ms, self._now_ms, self._since_s = self._now_ms, ahead_ms, at_s
        else:
            self._now_ms = max(self._now_ms, ahead_ms)

    def now_ms(self, at_s: float) -> int | None:
        """What the broker's clock shows at least at `at_s`; None before the first record."""
        if self._now_ms is None:
            return None
        ahead_ms = self._now_ms if self._before_ms is None else max(self._now_ms, self._before_ms)
        return int(ahead_ms + at_s * 1000)
