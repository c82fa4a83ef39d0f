"""Which dead letters are asked for, and that each origin is one letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.dlq.letters import AskedWronglyError, Group, Inventory, Origin, Wanted, groups, parse_place, parse_since
from infra.dlq.log import Notes
from infra.dlq.tally import Tally
from schemas.records import DeadLetter, DeadLetterReplay

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00Z


def letter(
    offset: int = 0, *, topic: str = "probe-results", reason: str = "truncated", at_ms: int = NOW_MS, by: str = "worker"
) -> DeadLetter:
    return DeadLetter(reason, "a detail", topic, 3, offset, at_ms, by, b"node", b"value", 5)


@pytest.mark.parametrize(
    ("wanted", "selected"),
    [
        pytest.param(Wanted(), True, id="no filter selects all"),
        pytest.param(Wanted(topic="probe-results", reason="truncated"), True, id="both filters fit"),
        pytest.param(Wanted(topic="heartbeats"), False, id="another topic"),
        pytest.param(Wanted(topic="probe-results", reason="empty"), False, id="another reason"),
        pytest.param(Wanted(since_ms=NOW_MS), True, id="appended at the very moment"),
        pytest.param(Wanted(since_ms=NOW_MS + 1), False, id="appended before"),
        pytest.param(Wanted(places=frozenset({"probe-results/3/7"})), True, id="its place"),
        pytest.param(Wanted(places=frozenset({"probe-results/3/8"})), False, id="another place"),
    ],
)
def test_a_letter_is_selected_by_all_filters_together(wanted: Wanted, selected: bool) -> None:  # noqa: FBT001 - a case
    assert wanted.selects(letter(7)) is selected


def test_two_letters_about_one_record_are_one_and_the_newest_counts() -> None:
    inventory = Inventory(Wanted())
    inventory.add(letter(7, reason="undecodable", by="archive"), partition=1, offset=10, told_ms=NOW_MS + 2)
    inventory.add(letter(7, reason="truncated", by="worker"), partition=0, offset=99, told_ms=NOW_MS + 1)
    [entry] = inventory.newest()
    assert (entry.reason, entry.detected_by, entry.partition, entry.offset) == ("undecodable", "archive", 1, 10)


def test_a_topic_that_was_created_anew_has_other_records_at_the_same_places() -> None:
    inventory = Inventory(Wanted())
    for at_ms in (NOW_MS, NOW_MS + 5):
        inventory.add(letter(7, at_ms=at_ms), partition=0, offset=0, told_ms=at_ms)
    assert [entry.origin.append_ms for entry in inventory.newest()] == [NOW_MS + 5, NOW_MS]


@given(times=st.lists(st.integers(0, 50), max_size=30), limit=st.integers(1, 10))
def test_the_newest_letters_come_first_in_any_order_of_reading(times: list[int], limit: int) -> None:
    inventory = Inventory(Wanted())
    for offset, at_ms in enumerate(times):
        inventory.add(letter(offset, at_ms=at_ms), partition=0, offset=offset, told_ms=at_ms)
    assert [entry.origin.append_ms for entry in inventory.newest(limit)] == sorted(times, reverse=True)[:limit]


def test_counts_are_by_topic_and_reason_with_what_went_back() -> None:
    inventory = Inventory(Wanted())
    letters = [letter(1, at_ms=5), letter(2, at_ms=9), letter(3, reason="empty"), letter(1, topic="heartbeats")]
    for offset, each in enumerate(letters):
        inventory.add(each, 0, offset, NOW_MS)
    assert groups(inventory.entries.values(), [Origin.of(letters[1])]) == [
        Group("probe-results", "truncated", letters=2, replayed=1, first_ms=5, last_ms=9),
        Group("heartbeats", "truncated", letters=1, replayed=0, first_ms=NOW_MS, last_ms=NOW_MS),
        Group("probe-results", "empty", letters=1, replayed=0, first_ms=NOW_MS, last_ms=NOW_MS),
    ]


def test_an_intent_after_the_note_that_it_is_done_changes_nothing() -> None:
    intent = DeadLetterReplay("probe-results", 3, 7, NOW_MS, "INTENT", 0, 100)
    done = DeadLetterReplay("probe-results", 3, 7, NOW_MS, "DONE", 0, 101)
    origin = Origin.of(done)
    notes = Notes()
    notes.add(intent)
    assert (notes.begun, notes.done) == ({origin: intent}, {})
    notes.add(done)
    notes.add(intent)
    assert (notes.begun, notes.done) == ({}, {origin: done})


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", NOW_MS - 90_000),
        ("2h", NOW_MS - 7_200_000),
        ("1w", NOW_MS - 604_800_000),
        ("2026-01-01", NOW_MS),
        ("2026-01-01T00:00", NOW_MS),
        ("2026-01-01T02:00:00+02:00", NOW_MS),
        ("2025-12-31T23:59:59.500Z", NOW_MS - 500),
    ],
)
def test_since_is_an_age_or_a_time(text: str, ms: int) -> None:
    assert parse_since(text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "yesterday", "2026-13-01"])
def test_another_since_is_refused_with_examples(text: str) -> None:
    with pytest.raises(AskedWronglyError, match="expected an age such as 90s, 15m, 2h, 7d, 2w, or a time such as 2026"):
        parse_since(text, NOW_MS)


def test_a_place_is_topic_partition_and_offset() -> None:
    assert parse_place("probe-results/03/0012") == "probe-results/3/12"
    for text in ("probe-results/3", "probe-results/3/-1", "a/b/3/4", "probe-results/x/1", ""):
        with pytest.raises(AskedWronglyError, match="expected TOPIC/PARTITION/OFFSET, as in probe-results/3/1200"):
            parse_place(text)


def test_what_stays_behind_is_told_without_commands_to_a_terminal() -> None:
    tally = Tally()
    tally.leave("probe-results", "key-mismatch", "probe-results/3/7: key '\x1b[2J'")
    assert list(tally.as_lines()) == ["1 of probe-results left: key-mismatch; probe-results/3/7: key '\\x1b[2J'"]
    assert tally.as_json()["left"] == {"key-mismatch": 1}
