"""Who stands still although there is something to read, and who only looks like it. Time is a value."""

from collections.abc import Callable, Iterator

import pytest

from streams.core.stall import Reading, StallWatch

LIMIT_S = 60.0


def looks(readings: Callable[[int], Reading | None], seconds: int, watch: StallWatch[str]) -> Iterator[float]:
    """One look a second; what the only partition is said to have stood still."""
    for second in range(seconds):
        reading = readings(second)
        watch.look({} if reading is None else {"p": reading}, float(second))
        worst = watch.worst()
        yield 0.0 if worst is None else worst[1]


def longest(readings: Callable[[int], Reading | None], seconds: int = 300) -> float:
    return max(looks(readings, seconds, StallWatch(3.0)))


def test_behind_without_progress_is_a_stall() -> None:
    assert longest(lambda _: Reading(100, 101), 61) == LIMIT_S


@pytest.mark.parametrize(
    "readings",
    [
        pytest.param(lambda _: Reading(100, 100), id="nothing to read"),
        pytest.param(lambda s: Reading(100 + s // 50, 10_000), id="slow progress is progress"),
        pytest.param(lambda s: Reading(s, s + 1_000_000), id="an overload is none"),
        pytest.param(lambda s: Reading(100, 100 + (s % 50 > 0)), id="caught up now and then"),
        pytest.param(lambda s: None if s % 50 == 0 else Reading(100, 101), id="not known now and then"),
        pytest.param(lambda s: Reading(100 - s // 50, 1_000), id="read again from further back"),
    ],
)
def test_all_else_is_none(readings: Callable[[int], Reading | None]) -> None:
    assert longest(readings) < LIMIT_S


def test_a_process_that_was_stopped_has_not_watched() -> None:
    watch: StallWatch[str] = StallWatch(3.0)
    watch.look({"p": Reading(1, 2)}, 0.0)
    watch.look({"p": Reading(1, 2)}, 500.0)
    assert watch.worst() == ("p", 3.0)


def test_what_is_forgotten_begins_anew() -> None:
    watch: StallWatch[str] = StallWatch(3.0)
    watch.look({"p": Reading(1, 2)}, 0.0)
    watch.look({"p": Reading(1, 2)}, 1.0)
    watch.forget()
    assert watch.worst() is None
    watch.look({"p": Reading(1, 2)}, 2.0)
    assert watch.worst() == ("p", 0.0)


def test_the_worst_of_many_is_named() -> None:
    watch: StallWatch[str] = StallWatch(3.0)
    for second in range(5):
        watch.look({"stuck": Reading(7, 9), "moves": Reading(second, 9), "idle": Reading(9, 9)}, float(second))
    assert watch.worst() == ("stuck", 4.0)
