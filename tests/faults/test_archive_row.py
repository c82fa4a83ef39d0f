"""The short form of row 3 of `make faults`: an archive that dies, judged by the exact oracle."""

import random
from pathlib import Path

import pytest

from tests.faults.run import run_row
from tests.faults.test_rows import SHORT


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_archive_killed_at_a_rename_and_after_an_insert_stores_every_record_once(tmp_path: Path) -> None:
    outcome = run_row(3, random.SystemRandom().randrange(1 << 32), SHORT, tmp_path)
    assert outcome.faults == ()
    assert outcome.events > 1_000
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.kills >= 3
