"""Whether the views showed silent nodes as DOWN, and those that had said goodbye as GONE: in time, and no others."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from infra.oracle.judge import Verdict
from infra.oracle.silences import Silence
from infra.oracle.watch import Look, Watched

# A node is DOWN three intervals and 1 s after its last heartbeat, and shown so within one second more.
MISSED_INTERVALS = 3
DOWN_AFTER_MS = 1_000
# An answer may be older than that second when it says so: on a busy machine all of them are. But not by more than this.
STALE_MS = 30_000
# A heartbeat is on its way into the views for at most so long.
HEARD_WITHIN_MS = 2_000
# Whoever was due for so long was looked at.
UNSEEN_MS = 5_000


def down_after_ms(interval_ms: int) -> int:
    """The silence after which a node is DOWN."""
    return MISSED_INTERVALS * interval_ms + DOWN_AFTER_MS


def judge_sightings(verdict: Verdict, found: Sequence[Silence], watched: Watched) -> None:
    """Every look against the silences; what the views say about the guest is not judged."""
    looks = watched.looks
    if not looks:
        verdict.differ("looks", "nobody looked while the fleet ran; expected about two looks a second")
        return
    verdict.stalest_look_ms = max(look.begun_ms - look.complete_to_ms for look in looks)
    if verdict.stalest_look_ms > STALE_MS:
        what = f"the views were {verdict.stalest_look_ms} ms behind Kafka"
        verdict.differ("looks", f"{what}; expected at most {STALE_MS} ms, and 1000 ms on a quiet machine")
    _judge_silent(verdict, found, looks, watched.beats.interval_ms)
    _judge_shown(verdict, found, watched)


def _judge_silent(verdict: Verdict, found: Sequence[Silence], looks: Sequence[Look], interval_ms: int) -> None:
    """Each look that holds all up to the moment at which a node had to be shown, and was over before it was back."""
    for silence in found:
        state, after_ms = ("GONE", HEARD_WITHIN_MS) if silence.goodbye else ("DOWN", down_after_ms(interval_ms))
        due_ms = silence.from_ms + after_ms
        if due_ms > looks[-1].ended_ms:
            continue
        due = complete_within(looks, due_ms, silence.to_ms)
        blind = [look for look in due if not look.shows(silence.node_id, gone=silence.goodbye)]
        if blind:
            what = f"not {state} {blind[0].complete_to_ms - silence.from_ms} ms after its last heartbeat"
            verdict.differ(f"nodes {state.lower()}", f"{silence.node_id} was {what}; expected it after {after_ms} ms")
        elif due:
            _count(verdict, silence, looks)
        elif min(silence.to_ms, looks[-1].ended_ms) - due_ms > STALE_MS + UNSEEN_MS:
            verdict.differ("looks", f"nobody looked at {silence.node_id} in the time when it was {state}")


def complete_within(looks: Iterable[Look], begin_ms: int, end_ms: int) -> list[Look]:
    """Those that hold all up to the begin, and were over before the end."""
    return [look for look in looks if begin_ms <= look.complete_to_ms and look.ended_ms < end_ms]


def _count(verdict: Verdict, silence: Silence, looks: Sequence[Look]) -> None:
    if silence.goodbye:
        verdict.nodes_gone_seen += 1
        return
    verdict.nodes_down_seen += 1
    first = next(look for look in looks if look.begun_ms > silence.from_ms and look.shows(silence.node_id, gone=False))
    verdict.down_latest_ms = max(verdict.down_latest_ms, first.begun_ms - silence.from_ms)


def _judge_shown(verdict: Verdict, found: Sequence[Silence], watched: Watched) -> None:
    """Nobody may be shown as DOWN before three intervals of silence, or as GONE without a goodbye, or for too long."""
    of_node: Mapping[str, list[Silence]] = defaultdict(list)
    for silence in found:
        of_node[silence.node_id].append(silence)
    wrong: dict[tuple[str, str], str] = {}
    for look in watched.looks:
        for state, shown in (("DOWN", look.down), ("GONE", look.gone)):
            pause_ms = MISSED_INTERVALS * watched.beats.interval_ms if state == "DOWN" else 0
            for node_id in shown - {watched.guest}:
                known = of_node.get(node_id, ())
                if not _explained([one for one in known if one.goodbye == (state == "GONE")], look, pause_ms):
                    wrong.setdefault((state, node_id), _what_was(known, look))
    verdict.false_downs = sum(state == "DOWN" for state, _ in wrong)
    for (state, node_id), heard in sorted(wrong.items()):
        verdict.differ(f"false {state.lower()}s", f"{node_id} was shown as {state}; {heard}")


def _explained(rightly: Iterable[Silence], look: Look, pause_ms: int) -> bool:
    return any(
        one.from_ms + pause_ms <= look.ended_ms and look.complete_to_ms <= one.to_ms + HEARD_WITHIN_MS
        for one in rightly
    )


def _what_was(known: Iterable[Silence], look: Look) -> str:
    """The sentence about a node's last silence before a look."""
    before = [one for one in known if one.from_ms <= look.ended_ms]
    if not before:
        return f"the ledger has no pause of it before {look.ended_ms}"
    last = before[-1]
    said = "a goodbye" if last.goodbye else "a heartbeat"
    return f"its last pause began with {said} at {last.from_ms}, {look.ended_ms - last.from_ms} ms before"
