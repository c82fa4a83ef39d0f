"""What of a topic's records is counted, by their signatures: between reading and counting."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.blocks import Reject
from schemas.record_batches import SIGNATURE, VALUE
from streams import metrics
from streams.core.replays import Replays
from streams.core.signing import Doubt, Finding, Keyring, Signed, Verifier
from streams.pieces import records_at
from streams.processors.source_reading import Reading

Longs = npt.NDArray[np.int64]

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
        signed = _signed(reading, rows)
        frame = reading.frame.drop(SIGNATURE, VALUE)
        findings = {place: found for place, found in enumerate(self._verifier.judge(signed)) if found is not None}
        if replays is not None:
            good = np.delete(np.arange(len(rows)), list(findings))
            boots = list(zip(signed.node_ids, signed.boot_ids, strict=True))
            again = replays.find(
                reading.batches,
                rows[good],
                [boots[place] for place in good.tolist()] if findings else boots,
                [signed.seqs[place] for place in good.tolist()] if findings else signed.seqs,
            )
            findings |= dict.fromkeys(good[again].tolist(), _AGAIN)
        self._count(findings.values())
        if not self._signatures.refuses or not findings:
            return replace(reading, frame=frame)
        refused = sorted(findings)
        taken = np.ones(len(rows), np.bool_)
        taken[refused] = False
        return replace(
            reading,
            frame=frame.filter(pl.Series(taken)),
            rejects=[*reading.rejects, *(_reject(int(rows[place]), findings[place]) for place in refused)],
            rejected=[*reading.rejected, *records_at(reading.pieces, rows[refused].tolist())],
        )

    def again(self, reading: Reading, rows: Sequence[int]) -> Reading:
        """Of a checked reading the records that whoever counted has found to come again: as rejects, and no others."""
        rows = sorted(rows)
        self._count([_AGAIN] * len(rows))
        if not self._signatures.refuses:
            rows = []
        rejected = records_at(reading.pieces, rows)
        return replace(reading, rejects=[_reject(row, _AGAIN) for row in rows], rejected=rejected)

    def _count(self, findings: Iterable[Finding]) -> None:
        for doubt, count in Counter(finding.doubt for finding in findings).items():
            metrics.DOUBTS.labels(self._topic, doubt).inc(count)


def _signed(reading: Reading, rows: Longs) -> Signed:
    nodes, boots, seqs = (reading.frame[name].to_list() for name in SIGNED_COLUMNS)
    append_ms = np.concatenate([np.zeros(0, np.int64), *(batch.append_ms for batch in reading.batches)])[rows]
    signatures, values = (reading.frame[name].to_list() for name in (SIGNATURE, VALUE))
    return Signed(signatures, nodes, boots, seqs, values, append_ms.tolist())


def _reject(row: int, finding: Finding) -> Reject:
    return Reject(row, finding.doubt, finding.detail)
