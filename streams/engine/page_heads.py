"""The first bytes of every state page: its format, and to which log the offsets in it refer.

Format 1 began without `topic_id`, `generation` and `partitions`; a page that lacks them is of generation 0. Format 2
was written for tables that had heard of another topic than probe-results, and only for them: whoever does not know it
would count that topic's partitions as partitions of probe-results. In format 3, which tables write now, the names of
series are compressed between head and rows. Pages of nodes are of format 1.
"""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from streams.topic_ids import TopicIdentity

NODES_FORMAT = OLDEST = 1
SLO_FORMAT = 3
NAMES_COMPRESSED = 3
_LENGTH = struct.Struct(">I")


class PageFormatError(RuntimeError):
    """A page of a newer version of fleetbeat: to leave it out would be to forget what it holds."""


class PartitionsChangedError(RuntimeError):
    """Keys have other partitions than when the state was written: it would be answered and counted in wrong places."""

    def __init__(self, topic: str, partition: int, written: int, found: int) -> None:
        super().__init__(
            f"{topic} partition {partition}: the state was written when topics had {written} partitions, now they have "
            f"{found}; expected the same (`fleetbeat state rebuild` begins anew from what the topics hold)"
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """The log that offsets refer to: `generation` counts how often a topic of that name was created anew."""

    topic_id: str = ""
    generation: int = 0
    partitions: int = 0

    @classmethod
    def of(cls, header: dict[str, Any]) -> "Origin":
        """As a page says it. Raises ValueError and TypeError."""
        origin = cls(
            str(header.get("topic_id", "")), int(header.get("generation", 0)), int(header.get("partitions", 0))
        )
        if origin.generation < 0:
            raise ValueError(f"generation {origin.generation}; expected 0 or more")
        return origin

    @property
    def header(self) -> dict[str, Any]:
        """What `of` reads."""
        return {"topic_id": self.topic_id, "generation": self.generation, "partitions": self.partitions}


def origin_now(identity: TopicIdentity, found: Iterable[Origin]) -> Origin:
    """Where the log that is there now stands among those that pages speak of.

    Pages that name no topic are of the first one, whichever it was: with none but those, that is the one there is now.
    """
    origins = list(found)
    last = max((origin.generation for origin in origins), default=0)
    same = [o.generation for o in origins if o.topic_id == identity.topic_id]
    if identity.topic_id and not same and any(origin.topic_id for origin in origins):
        generation = last + 1
    else:
        generation = max(same, default=last) if identity.topic_id else last
    return Origin(identity.topic_id, generation, identity.partitions)


def require_partitions(topic: str, partition: int, now: Origin, found: Iterable[Origin]) -> None:
    """Raises PartitionsChangedError."""
    for origin in found:
        if origin.partitions and now.partitions and origin.partitions != now.partitions:
            raise PartitionsChangedError(topic, partition, origin.partitions, now.partitions)


def write_head(header: dict[str, Any], written: int) -> bytes:
    """What stands before the rows; `written` is the format."""
    head = json.dumps({"format": written, **header}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(head)) + head


def read_head(value: bytes, what: str, newest: int) -> tuple[dict[str, Any], bytes]:
    """The header and the rows' bytes; `newest` is the last format of such pages.

    Raises PageFormatError; and ValueError, LookupError, TypeError, RecursionError or struct.error for what is no page.
    """
    (length,) = _LENGTH.unpack_from(value)
    header = json.loads(value[_LENGTH.size : _LENGTH.size + length])
    written = header["format"]
    if isinstance(written, int) and written > newest:
        raise PageFormatError(
            f"{what}: page format {written}; expected {newest}: it was written by a newer fleetbeat, "
            "upgrade this worker (`fleetbeat state reset` would give up what the page holds)"
        )
    if not isinstance(written, int) or written < OLDEST:
        raise ValueError(f"page format {written}; expected {OLDEST} to {newest}")
    return header, value[_LENGTH.size + length :]
