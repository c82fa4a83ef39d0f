"""The spool's store: whatever ends the process, and whatever the bytes on disk are."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from agents.spool import layout
from agents.spool.journal import Journal, Settled
from tests.unit.spool_machine import SpoolMachine

SOME = settings(max_examples=60, stateful_step_count=30)


def test_each_record_is_in_kafka_once_and_in_order_or_is_counted_whatever_happens() -> None:
    run_state_machine_as_test(SpoolMachine, settings=SOME)


def test_without_checksums_damaged_records_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "checksum", lambda _: 0)
    with pytest.raises(Exception):  # noqa: B017, PT011
        run_state_machine_as_test(SpoolMachine, settings=settings(SOME, max_examples=500, database=None))


def test_without_the_journal_records_are_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(_: Journal, __: Settled) -> None:
        pass

    monkeypatch.setattr(Journal, "write", forgets)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(SpoolMachine, settings=settings(SOME, max_examples=500, database=None))
