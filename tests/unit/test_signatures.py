"""Signatures: the bytes, whose they are, and every way in which a record is not its node's own."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from hmac import digest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalog import load_topic
from schemas.codec import decode, encode, frame
from schemas.records import Heartbeat, ProbeResult, RequestCount
from schemas.signatures import SIGNATURE_BYTES, SigningKey, head, identity_of, node_key, sign, signed_bytes
from streams.core import signing
from streams.core.signing import Doubt, Finding, Keyring, Master, Signed, Verifier
from tests.unit.signed_records import BEAT, KEYRING, MASTER, PROBE, START_MS, TOPICS, signature

ROOT = Path(__file__).parents[2]
TEXTS = st.text("ab\0é", max_size=4)


def judged(
    said: ProbeResult | Heartbeat, signed: bytes | None, keyring: Keyring = KEYRING, append_ms: int = START_MS
) -> Finding | None:
    record = Signed([signed], [said.node_id], [said.boot_id], [said.seq], [encode(said)], [append_ms])
    (found,) = Verifier(TOPICS[type(said)], keyring).judge(record)
    return found


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=64))
def test_a_tag_is_the_beginning_of_the_hmac_of_rfc_2104(said: bytes, key: bytes) -> None:
    assert SigningKey(key).tag(said) == digest(key, said, sha256)[:16]


def test_producing_md_has_the_bytes_of_an_example() -> None:
    """What other languages are tested with."""
    text = (ROOT / "docs" / "producing.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- signature example -->\n\n((?:    .*\n)+)", text)
    assert block is not None
    words = dict(line.split(maxsplit=1) for line in block[1].splitlines())
    value = bytes.fromhex(words["value"])
    said = decode(value)
    assert isinstance(said, ProbeResult)
    assert (said.node_id, said.boot_id, str(said.seq)) == (words["node"], words["boot"], words["seq"])
    key = node_key(words["master"].encode(), words["node"])
    assert key.hex() == words["node-key"]
    ahead = head(int(words["key-id"]), int(words["signed-ms"]))
    who = (said.node_id.encode(), said.boot_id.encode(), said.seq)
    assert signed_bytes(ahead, words["topic"].encode(), who, value).hex() == words["signed"]
    assert sign(SigningKey(key), ahead, words["topic"], value).hex() == words["header"]


def test_its_layout_is_the_one_that_is_described() -> None:
    made = signature(PROBE, START_MS, key_id=7)
    assert len(made) == SIGNATURE_BYTES == 29
    assert struct.unpack(">BIq16s", made)[:3] == (1, 7, START_MS)


COUNT = RequestCount("n", START_MS, 1_000, "b", 5, "s", "/", "eu", 10, 8)


@pytest.mark.parametrize("said", [PROBE, replace(PROBE, seq=1 << 40, boot_id=""), BEAT, COUNT], ids=str)
def test_who_says_a_record_is_read_off_its_bytes(said: ProbeResult | Heartbeat | RequestCount) -> None:
    topic = {**TOPICS, RequestCount: "request-counts"}[type(said)]
    found = identity_of(topic, encode(said))
    assert (found.node_id, found.boot_id, found.seq) == (said.node_id, said.boot_id, said.seq)


def test_heartbeats_of_every_version_can_be_signed() -> None:
    body = encode(BEAT)[5:]
    for version in load_topic("heartbeats").versions:
        assert identity_of("heartbeats", frame(version.id, body)).boot_id == BEAT.boot_id


@pytest.mark.parametrize("value", [b"", b"\0\0\0\0\x02", encode(PROBE)[:8], encode(BEAT)], ids=lambda v: v[:8].hex())
def test_what_is_no_record_of_the_topic_is_not_signed(value: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        identity_of("probe-results", value)


@given(st.tuples(TEXTS, TEXTS, st.integers(0, 9), st.binary(max_size=6)), st.data())
def test_no_two_records_have_the_same_bytes_to_sign(one: tuple[str, str, int, bytes], data: st.DataObject) -> None:
    """Also where the end of one text is moved to the beginning of the next."""

    def said(parts: tuple[str, str, int, bytes]) -> bytes:
        node, boot, seq, value = parts
        return signed_bytes(b"", b"t", (node.encode(), boot.encode(), seq), value)

    node, boot, seq, value = one
    cut = data.draw(st.integers(0, len(node)))
    other = data.draw(
        st.sampled_from([(node[:cut], node[cut:] + boot, seq, value), (node + boot, "", seq, value)])
        | st.tuples(TEXTS, TEXTS, st.integers(0, 9), st.binary(max_size=6))
    )
    assert (said(one) == said(other)) == (one == other)


def test_a_record_of_its_own_node_is_taken() -> None:
    for said in (PROBE, BEAT, replace(PROBE, node_id="日本")):
        assert judged(said, signature(said, START_MS)) is None


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "its time": lambda made: made[:5] + struct.pack(">q", START_MS + 1) + made[13:],
    "its tag": lambda made: made[:-1] + bytes([made[-1] ^ 1]),
    "its version": lambda made: b"\2" + made[1:],
    "its length": lambda made: made[:-1],
    "all of it": lambda _: b"",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_signature_is_none(change: Callable[[bytes], bytes]) -> None:
    found = judged(PROBE, change(signature(PROBE, START_MS)))
    assert found is not None
    assert found.doubt is Doubt.BAD


@pytest.mark.parametrize(
    "other",
    [
        replace(PROBE, node_id="m"),
        replace(PROBE, boot_id="other"),
        replace(PROBE, seq=1),
        replace(PROBE, latency_us=10),
        replace(PROBE, success=False),
    ],
    ids=["node", "boot", "seq", "latency", "success"],
)
def test_a_signature_is_for_one_record_alone(other: ProbeResult) -> None:
    found = judged(other, signature(PROBE, START_MS))
    assert found == Finding(Doubt.BAD, f"not signed with the key of {other.node_id!r} (key id 1)")


@pytest.mark.parametrize(
    ("signed", "keyring", "at_ms", "doubt", "detail"),
    [
        (None, KEYRING, 0, Doubt.UNSIGNED, "no header fb-sig; expected one"),
        (signature(PROBE, START_MS, by="m"), KEYRING, 0, Doubt.BAD, "not signed with the key of 'n' (key id 1)"),
        (signature(PROBE, START_MS, topic="heartbeats"), KEYRING, 0, Doubt.BAD, ""),
        (signature(PROBE, START_MS, master=b"x" * 32), KEYRING, 0, Doubt.BAD, ""),
        (signature(PROBE, START_MS, key_id=2), KEYRING, 0, Doubt.UNKNOWN_KEY, "key id 2; expected one of [1]"),
        (signature(PROBE, START_MS), Keyring({1: Master(MASTER, START_MS)}), 0, Doubt.RETIRED_KEY, ""),
        (signature(PROBE, START_MS), Keyring({1: Master(MASTER, START_MS + 1)}), 0, None, ""),
        (signature(PROBE, START_MS), Keyring(KEYRING.masters, {"n": START_MS}), 0, Doubt.REVOKED, ""),
        (signature(PROBE, START_MS), Keyring(KEYRING.masters, {"n": START_MS + 1, "m": 0}), 0, None, ""),
        (signature(PROBE, START_MS), KEYRING, 60_000, None, ""),
        (signature(PROBE, START_MS), KEYRING, 60_001, Doubt.STALE, "60.001 s later; expected at most 60 s"),
        (signature(PROBE, START_MS), KEYRING, -60_001, Doubt.STALE, "-60.001 s later"),
    ],
    ids=str,
)
def test_every_doubt_has_its_reason(
    signed: bytes | None, keyring: Keyring, at_ms: int, doubt: Doubt | None, detail: str
) -> None:
    found = judged(PROBE, signed, keyring, START_MS + at_ms)
    assert (None if found is None else found.doubt) is doubt
    assert found is None or detail in found.detail


def test_a_topic_where_signing_would_have_to_know_more_is_named() -> None:
    with pytest.raises(ValueError, match="field target is double; expected texts and numbers ahead of seq"):
        identity_of("slo-status", b"")


def test_ready_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "MOST_KEYS", 3)
    verifier = Verifier("probe-results", KEYRING)
    said = [replace(PROBE, node_id=str(number % 5)) for number in range(20)]
    records = Signed(
        [signature(one, START_MS) for one in said],
        [one.node_id for one in said],
        [one.boot_id for one in said],
        [one.seq for one in said],
        [encode(one) for one in said],
        [START_MS] * len(said),
    )
    assert set(verifier.judge(records)) == {None}
    assert len(verifier._keys) <= 3


def test_new_keys_count_from_the_next_record_on() -> None:
    verifier = Verifier("probe-results", KEYRING)
    record = Signed([signature(PROBE, START_MS)], ["n"], ["boot"], [0], [encode(PROBE)], [START_MS])
    assert [*verifier.judge(record)] == [None]
    verifier.follow(Keyring({1: Master(b"another master of 32 bytes at least")}))
    (found,) = verifier.judge(record)
    assert found is not None
    assert found.doubt is Doubt.BAD


def test_a_secret_is_not_shown() -> None:
    assert "master" not in repr(KEYRING).replace("masters", "").replace("Master", "")
