"""The short form of `make faults`: many faults in one stand, judged by the exact oracle."""

import random
from pathlib import Path

import pytest

from tests.faults.driver.rows import TOGETHER
from tests.faults.driver.stand import Form
from tests.faults.run import run_row

# Other tests run beside it, so that freshness is not what is measured here.
SHORT = Form(nodes=200, results_per_s=1_200, long=False, visible_s=120)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_second_is_exact_and_every_record_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_BACKTRACE", "0")
    outcome = run_row(TOGETHER, random.SystemRandom().randrange(1 << 32), SHORT, tmp_path)
    assert outcome.faults == ()
    assert outcome.events > 10_000
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.kills == 5
