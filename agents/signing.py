"""The node's signature below each of its records, made when they are handed to Kafka: also those from the spool."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.clock import Clock
from schemas.signatures import HEADER, SigningKey, head, sign
from schemas.signing_files import NodeKey, read_node_key

Headers = list[tuple[str, bytes]]

# A batch that Kafka has not acknowledged by then is signed anew and sent again under its old numbers, so that Kafka
# writes it once: a signature is good for a minute.
SIGN_ANEW_AFTER_S = 20.0
# The clock of the host counts as right when it is no further away from the broker's.
_FINE_MS = 5_000

log = logging.getLogger(__name__)


class Signer:
    """Signs with one node's key. Its clock is the host's, set right by what brokers say."""

    def __init__(self, key: NodeKey, clock: Clock) -> None:
        self._key_id = key.key_id
        self._key = SigningKey(key.key)
        self._clock = clock
        self._behind_ms = 0

    def begin(self, topic: str) -> "Signing":
        """A batch that is handed over now."""
        return Signing(self, topic, self._clock.wall_ms() + self._behind_ms, self._clock.monotonic_s())

    def headers(self, topic: str, value: bytes, signed_ms: int) -> Headers:
        """For a record of the topic; none for what is no record, which nobody takes anyway."""
        try:
            return [(HEADER, sign(self._key, head(self._key_id, signed_ms), topic, value))]
        except ValueError as cause:
            log.error("a record cannot be signed", extra={"topic": topic, "why": str(cause)})  # noqa: TRY400 - it says it all
            return []

    def heard(self, signing: "Signing", append_ms: int) -> None:
        """The broker has appended a batch at `append_ms`, by its own clock; now its acknowledgement is here.

        One that took long says nothing: it may have been written at any moment of that time.
        """
        off_ms = append_ms - signing.signed_ms
        took_s = self._clock.monotonic_s() - signing.begun_s
        if append_ms > 0 and abs(off_ms) > _FINE_MS and took_s * 1_000 < _FINE_MS:
            self._behind_ms += off_ms
            log.warning("the host's clock is not the broker's", extra={"behind_ms": self._behind_ms})


@dataclass(frozen=True, slots=True)
class Signing:
    """What is signed for one batch; `begun_s` is monotonic."""

    signer: Signer
    topic: str
    signed_ms: int
    begun_s: float

    def headers(self, value: bytes) -> Headers:
        """Of one record."""
        return self.signer.headers(self.topic, value, self.signed_ms)

    def heard(self, append_ms: int) -> None:
        """See Signer."""
        self.signer.heard(self, append_ms)


class SignedBatches:
    """What a publisher signs, one batch of a topic at a time; nothing without a signer."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer
        self._batches: dict[str, Signing] = {}

    @property
    def patience_s(self) -> float | None:
        """How long a batch may be on its way before it has to be signed anew; None: for ever."""
        return None if self._signer is None else SIGN_ANEW_AFTER_S

    def begin(self, topic: str) -> None:
        """A batch is put together now."""
        if self._signer is not None:
            self._batches[topic] = self._signer.begin(topic)

    def headers(self, topic: str, value: bytes) -> Headers:
        """Of one record of the topic's batch."""
        return self._batches[topic].headers(value) if topic in self._batches else []

    def heard(self, topic: str, ack: asyncio.Future[Any]) -> None:
        """The topic's batch was acknowledged, by a broker that had never seen it before."""
        if topic in self._batches:
            self._batches[topic].heard(ack.result().timestamp)


def load_signer(path: Path | None, node_id: str, clock: Clock) -> Signer | None:
    """With the key in the file; None without one. Raises schemas.secret_files.SecretFileError."""
    return None if path is None else Signer(read_node_key(path, "node.key_file", node_id), clock)
