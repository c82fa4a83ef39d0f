"""What a letter is turned into before it goes back, and what is left behind with its reason."""

from dataclasses import replace

import pytest

from infra.dlq.corrections import Before, Corrections, Left, Ready, Verdict, judge
from infra.dlq.letters import AskedWronglyError, Origin
from infra.dlq.show import way_back
from schemas.codec import encode, frame, split_frame
from schemas.dead_letters import MAX_KEPT_BYTES, MAX_KEPT_KEY_BYTES, dead_letter
from schemas.dead_letters import Origin as Recorded
from schemas.records import DeadLetter, DeadLetterReplay, Heartbeat, ProbeResult

RESULT = ProbeResult("n", 1, "b", 0, "p", "http", "checkout", "/pay", "eu-1", success=True, latency_us=1_000)
BEAT = Heartbeat("n", 1, "b", 1, 0, 10_000, "UP", "eu", "a", "1")
GOOD = encode(RESULT)
FOREIGN = frame(901, split_frame(GOOD)[1])


def letter(value: bytes | None, key: bytes | None = b"n", topic: str = "probe-results") -> DeadLetter:
    return dead_letter(Recorded(topic, 3, 7, 1_000, key, value), "a reason", "a detail", "worker")


def only(dead: DeadLetter, corrections: Corrections | None = None) -> Verdict:
    [verdict] = judge([dead], corrections or Corrections(), {})
    return verdict


def test_a_letter_that_can_be_read_now_goes_back_as_it_was() -> None:
    assert only(letter(GOOD)) == Ready(Origin("probe-results", 3, 7, 1_000), b"n", GOOD, "")


def test_the_schema_id_is_rewritten_where_the_frame_has_the_wrong_one() -> None:
    corrections = Corrections({901: 2})
    ready = only(letter(FOREIGN), corrections)
    assert isinstance(ready, Ready)
    assert (ready.value, ready.correction) == (GOOD, "schema id 901 to 2")
    untouched = only(letter(GOOD), corrections)
    assert isinstance(untouched, Ready)
    assert (untouched.value, untouched.correction) == (GOOD, "")


def test_the_key_is_taken_from_the_record_when_it_is_asked_for() -> None:
    assert isinstance(only(letter(GOOD, key=b"someone")), Left)
    for key in (b"someone", None, b"k" * (MAX_KEPT_KEY_BYTES + 1)):
        ready = only(letter(FOREIGN, key), Corrections({901: 2}, key_from_node_id=True))
        assert isinstance(ready, Ready)
        assert (ready.key, ready.value) == (b"n", GOOD)
        assert ready.correction == "schema id 901 to 2, key from node_id"


@pytest.mark.parametrize(
    ("dead", "reason", "detail"),
    [
        pytest.param(letter(FOREIGN), "unknown-schema", "schema id 901; expected one of", id="an unknown schema"),
        pytest.param(letter(GOOD[:-1]), "truncated", "ends inside a field", id="a cut body"),
        pytest.param(letter(GOOD, key=b"x"), "key-mismatch", "key b'x'; expected node_id 'n'", id="another's key"),
        pytest.param(
            letter(encode(replace(RESULT, service=""))), "invalid-value", "expected 1 to 255 bytes", id="a broken rule"
        ),
        pytest.param(letter(encode(BEAT)), "unknown-schema", "schema id 13 is for heartbeats", id="another topic's"),
        pytest.param(letter(None), "empty", "the record had no value", id="no value"),
        pytest.param(letter(b"{}"), "bad-frame", "expected 00 and a 4-byte schema id", id="no frame"),
        pytest.param(
            letter(GOOD + b"x" * MAX_KEPT_BYTES), "cut", "the letter keeps 262,144 of 262,", id="a value that was cut"
        ),
        pytest.param(
            letter(GOOD, key=b"k" * (MAX_KEPT_KEY_BYTES + 1)), "cut", "32,768 bytes of the key", id="a cut key"
        ),
        pytest.param(
            letter(GOOD, topic="slo-partials"),
            "not-a-producers",
            "only heartbeats and probe-results",
            id="our own topic",
        ),
    ],
)
def test_what_cannot_be_read_is_left_with_its_reason(dead: DeadLetter, reason: str, detail: str) -> None:
    left = only(dead)
    assert isinstance(left, Left)
    assert left.reason == reason
    assert detail in left.detail


def test_each_letter_has_its_own_verdict_whatever_its_neighbours_are() -> None:
    letters = [
        replace(letter(GOOD), offset=0),
        replace(letter(GOOD[:-1]), offset=1),
        replace(letter(encode(BEAT), topic="heartbeats"), offset=2),
        replace(letter(GOOD), offset=3),
        replace(letter(FOREIGN), offset=4),
    ]
    note = DeadLetterReplay("probe-results", 3, 3, 1_000, "DONE", 0, 5)
    verdicts = judge(letters, Corrections(), {Origin.of(note): note})
    assert [type(verdict) for verdict in verdicts] == [Ready, Left, Ready, Before, Left]
    assert [verdict.origin.offset for verdict in verdicts] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("dead", "way"),
    [
        (letter(GOOD), "fleetbeat dlq replay probe-results/3/7"),
        (letter(FOREIGN), "fleetbeat dlq replay probe-results/3/7 --schema-id 901=2"),
        (letter(GOOD, key=b"x"), "fleetbeat dlq replay probe-results/3/7 --key-from-node-id"),
        (letter(FOREIGN, key=b"x"), "fleetbeat dlq replay probe-results/3/7 --schema-id 901=2 --key-from-node-id"),
        (letter(GOOD[:-1]), "no way: the body of"),
        (letter(encode(BEAT)[:-1], topic="heartbeats"), "no way: the body of"),
    ],
)
def test_the_way_back_is_one_that_works(dead: DeadLetter, way: str) -> None:
    assert way_back(dead).startswith(way)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["901"], "--schema-id '901': expected FOUND=RIGHT, as in 901=2"),
        (["901=x"], "expected FOUND=RIGHT"),
        (["4294967296=2"], "expected FOUND=RIGHT"),
        (["901=99"], "--schema-id '901=99': schema id 99; expected one of"),
        (["901=2", "901=6"], "--schema-id '901=6': 901 was already to become 2"),
    ],
)
def test_a_wrong_correction_is_refused(pairs: list[str], said: str) -> None:
    with pytest.raises(AskedWronglyError, match=said):
        Corrections.parse(pairs, key_from_node_id=False)
