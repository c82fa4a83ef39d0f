"""What a node is, told by its silence and its last word."""

import numpy as np
import pytest

from streams.core.liveness.states import GOODBYE, STATES, leaves_at_ms, not_up

SEEN_MS = 1_763_000_000_000

# interval, ms of silence → state, since (ms after the last heartbeat; None: UP, since whenever).
SILENCES = {
    "a node that has just spoken is up": (5_000, 0, "UP", None),
    "an interval and a second are forgiven": (5_000, 5_999, "UP", None),
    "then it is late": (5_000, 6_000, "LATE", 6_000),
    "two intervals and the second make it suspect": (5_000, 11_000, "SUSPECT", 11_000),
    "it is suspect until three are over": (5_000, 15_999, "SUSPECT", 11_000),
    "three intervals and a second: down": (5_000, 16_000, "DOWN", 16_000),
    "down stays down": (5_000, 86_400_000, "DOWN", 16_000),
    "a long interval is forgiven a tenth of it": (60_000, 65_999, "UP", None),
    "a long interval is late after its tenth": (60_000, 66_000, "LATE", 66_000),
    "suspect after a second interval, with the same tenth": (60_000, 126_000, "SUSPECT", 126_000),
    "down has no such tenth": (60_000, 181_000, "DOWN", 181_000),
    "the shortest interval still has a second": (1, 1_000, "UP", None),
    "a heartbeat from the future of our clock is up": (5_000, -60_000, "UP", None),
}


@pytest.mark.parametrize(("interval_ms", "silence_ms", "state", "since_ms"), SILENCES.values(), ids=SILENCES.keys())
def test_silence_tells_the_state(interval_ms: int, silence_ms: int, state: str, since_ms: int | None) -> None:
    # A neighbour that is up: what is said must be of the right one.
    seen = np.array([SEEN_MS + silence_ms, SEEN_MS])
    reported = np.zeros(2, np.int8)
    rows, states, since = not_up(seen, np.array([60_000, interval_ms], np.int32), reported, SEEN_MS + silence_ms)
    found = [(int(row), STATES[code], at - SEEN_MS) for row, code, at in zip(rows, states, since, strict=True)]
    assert found == ([] if since_ms is None else [(1, state, since_ms)])


@pytest.mark.parametrize("silence_ms", [0, 6_000, 16_000, 86_400_000])
def test_after_a_goodbye_a_node_is_gone_however_long_it_is_silent(silence_ms: int) -> None:
    goodbye = np.array([GOODBYE], np.int8)
    rows, states, since = not_up(np.array([SEEN_MS]), np.array([5_000], np.int32), goodbye, SEEN_MS + silence_ms)
    assert (rows.tolist(), [STATES[code] for code in states], since.tolist()) == ([0], ["GONE"], [SEEN_MS])


def test_a_node_leaves_seven_days_after_it_was_down() -> None:
    leaves = leaves_at_ms(np.array([SEEN_MS]), np.array([5_000], np.int32))
    assert leaves.tolist() == [SEEN_MS + 16_000 + 7 * 86_400_000]
