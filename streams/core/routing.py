"""Which worker keeps what, as the group has agreed, and whether answers of several are the whole: pure."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

# A host's name, an IPv4 address, or an IPv6 address in brackets, and a port.
_ADDRESS = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})\Z")
_LAST_PORT = 65_535


class AddressError(ValueError):
    """An address at which other workers cannot reach this one."""


def parse_address(text: str) -> str:
    """HOST:PORT in small letters. Raises AddressError."""
    found = _ADDRESS.match(text)
    if found is None or not 0 < int(found[1]) <= _LAST_PORT:
        raise AddressError("expected HOST:PORT, such as 10.0.0.7:8080 or worker-1.example.org:8080")
    return text.lower()


def address_of(url: str) -> str:
    """HOST:PORT of a worker's URL. Raises AddressError."""
    place = url.removeprefix("http://").rstrip("/")
    return parse_address(place if re.search(r":\d+\Z", place) else f"{place}:80")


@dataclass(frozen=True, slots=True)
class Members:
    """The group's last agreement: `own` is this worker's address, `keepers` (topic, partition) → who has it."""

    own: str
    keepers: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def keeper(self, topic: str, partition: int) -> str | None:
        """The address of another worker that keeps a partition; None when it is this one's, or nobody knows whose."""
        address = self.keepers.get((topic, partition))
        return None if address == self.own else address

    def others(self, topic: str) -> tuple[str, ...]:
        """The other workers that keep some of a topic."""
        return tuple(sorted({a for (name, _), a in self.keepers.items() if name == topic and a != self.own}))


def agreed(own: str, distribution: Mapping[str, Mapping[str, Collection[int]]]) -> Members:
    """What Faust's assignor tells every member: URL → topic → partitions. Addresses that are none are left out."""
    keepers: dict[tuple[str, int], str] = {}
    for url, topics in distribution.items():
        try:
            address = address_of(url)
        except AddressError:
            continue
        keepers |= {(topic, partition): address for topic, found in topics.items() for partition in found}
    return Members(own, keepers)


def not_whole(shares: Iterable[Collection[int]], partitions: int) -> str | None:
    """Why answers about these partitions are not together one about all; None when each is there once."""
    counts = Counter(partition for share in shares for partition in share)
    missing = [partition for partition in range(partitions) if partition not in counts]
    twice = sorted(partition for partition, count in counts.items() if count > 1)
    if missing:
        return f"no worker answers for partitions {missing}"
    return f"several workers answer for partitions {twice}" if twice else None
