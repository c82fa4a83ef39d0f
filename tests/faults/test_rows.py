"""The short form of `make faults`: a worker that dies at three named points, and (long) poison; the oracle is exact."""

import random
from pathlib import Path

import pytest

from tests.faults.driver.stand import Form
from tests.faults.run import run_row

# Other tests run beside it, so that freshness is not what is measured here.
SHORT = Form(nodes=200, results_per_s=2_000, long=False, visible_s=60)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(2, id="a worker dies at named points"),
        # Most of a minute for what test_blocks_poison.py and test_end_to_end_producers.py see in seconds.
        pytest.param(10, id="poison in every topic", marks=pytest.mark.long),
    ],
)
def test_every_second_is_exact_and_every_record_stored_once(row: int, tmp_path: Path) -> None:
    outcome = run_row(row, random.SystemRandom().randrange(1 << 32), SHORT, tmp_path)
    assert outcome.faults == ()
    assert outcome.events > 10_000
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.kills == (3 if row == 2 else 0)
