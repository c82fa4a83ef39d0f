"""Random interleavings of batches, crashes, replays cut otherwise, zombies and late events, drawn by hypothesis."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.exactness_controls import FOUND_BY_CHANCE
from tests.unit.exactness_machine import Machine
from tests.unit.exactness_world import World

LONG_STEPS = 10_000


def machine_of(world: type[World]) -> type[Machine]:
    class Drawn(Machine):
        world_class = world

    return Drawn


def drive(world: type[World], runs: int, *phases: Phase, same: bool = False) -> int:
    """Steps that did something, the `same` each time or others. Raises AssertionError with a story that went wrong."""
    machine = machine_of(world)
    chosen = settings(
        max_examples=runs,
        stateful_step_count=50,
        deadline=None,
        derandomize=same,
        database=None,
        print_blob=True,
        phases=phases or (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    finally:
        print(f"{world.__name__}: {machine.taken} steps")
    return machine.taken


def test_the_tables_are_what_the_log_says_whatever_is_drawn() -> None:
    assert drive(World, 12) > 120


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_ten_thousand_steps() -> None:
    assert drive(World, 320) >= LONG_STEPS


def test_a_missing_rule_is_found() -> None:
    with pytest.raises(AssertionError):
        drive(FOUND_BY_CHANCE[0], 300, Phase.generate, same=True)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("without", FOUND_BY_CHANCE[1:], ids=lambda rule: rule.__name__)
def test_any_missing_rule_is_found_in_the_end(without: type[World]) -> None:
    with pytest.raises(AssertionError):
        drive(without, 1_500, Phase.generate)
