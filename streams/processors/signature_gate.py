"""What of a topic's records is counted, by their signatures: between reading and counting."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from schemas.blocks import Reject
from schemas.signatures import HEADER
from streams import metrics
from streams.core.replays import Replays
from streams.core.signing import Doubt, Finding, Keyring, Signed, Verifier
from streams.pieces import Records
from streams.processors.source_reading import Reading

# What the gate needs beside the columns of whoever counts.
SIGNED_COLUMNS = ("node_id", "boot_id", "seq")
_AGAIN = Finding(Doubt.REPLAYED, "seq is not above what this boot of the node has sent before; expected it to go up")


@dataclass(slots=True)
class Signatures:
    """What a worker does about signatures. `refuses`: doubtful records are not counted; else they are counted only.

    `keyring` may be changed at any time; each read goes by what it is at its beginning.
    """

    keyring: Keyring
    refuses: bool


class SignatureGate:
    """For one topic; used by one thread."""

    def __init__(self, topic: str, signatures: Signatures) -> None:
        self._topic = topic
        self._signatures = signatures
        self._verifier = Verifier(topic, signatures.keyring)

    def check(self, reading: Reading, replays: Replays | None = None) -> Reading:
        """The reading without the records that are refused, which are among its rejects.

        Without `replays` whoever counts finds out itself what comes again, and says so to `again`.
        """
        self._verifier.follow(self._signatures.keyring)
        rows = reading.frame["_row"].to_numpy().astype(np.int64)
        assert reading.records is not None  # noqa: S101 - the reader was asked for them
        records = [reading.records[row] for row in rows.tolist()]
        signed = _signed(reading.frame, records)
        findings = dict[int, Finding]()
        for place, found in enumerate(self._verifier.judge(signed)):
            if found is not None:
                findings[place] = found
        if replays is not None:
            good = np.array([place for place in range(len(rows)) if place not in findings], np.int64)
            boots = [(signed.node_ids[place], signed.boot_ids[place]) for place in good.tolist()]
            seqs = [signed.seqs[place] for place in good.tolist()]
            again = replays.find(reading.batches, rows[good], boots, seqs)
            findings |= dict.fromkeys(good[again].tolist(), _AGAIN)
        self._count(findings.values())
        if not self._signatures.refuses or not findings:
            return reading
        refused = sorted(findings)
        taken = np.ones(len(rows), np.bool_)
        taken[refused] = False
        return replace(
            reading,
            frame=reading.frame.filter(pl.Series(taken)),
            rejects=[*reading.rejects, *(_reject(int(rows[place]), findings[place]) for place in refused)],
            rejected=[*reading.rejected, *(records[place] for place in refused)],
        )

    def again(self, reading: Reading, rows: Sequence[int]) -> Reading:
        """Of a checked reading the records that whoever counted has found to come again: as rejects, and no others."""
        self._count([_AGAIN] * len(rows))
        if not self._signatures.refuses or reading.records is None:
            rows = []
        rejected = [reading.records[row] for row in rows] if reading.records else []
        return replace(reading, rejects=[_reject(row, _AGAIN) for row in rows], rejected=rejected)

    def _count(self, findings: Iterable[Finding]) -> None:
        for doubt, count in Counter(finding.doubt for finding in findings).items():
            metrics.DOUBTS.labels(self._topic, doubt).inc(count)


def _signed(frame: pl.DataFrame, records: Records) -> Signed:
    nodes, boots, seqs = (frame[name].to_list() for name in SIGNED_COLUMNS)
    return Signed(
        [_signature(record.headers) for record in records],
        nodes,
        boots,
        seqs,
        [record.value for record in records],
        [record.timestamp for record in records],
    )


def _signature(headers: Sequence[tuple[str, bytes | None]]) -> bytes | None:
    """The header's value; b"", which is no signature, where there are several or it is null."""
    found = [value for name, value in headers if name == HEADER]
    if not found:
        return None
    return (found[0] or b"") if len(found) == 1 else b""


def _reject(row: int, finding: Finding) -> Reject:
    return Reject(row, finding.doubt, finding.detail)
