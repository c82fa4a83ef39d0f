"""Names to addresses as this host sees them: /etc/hosts, then its name servers, each query cancellable.

getaddrinfo() would block a thread until it gives up, so a few dead names could starve all others. Here 500 names that
hang are 500 sockets, each closed at its own probe's deadline. Nothing is cached: a probe has to notice a dead resolver.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from agents.probes.addresses import Address
from agents.probes.watch import ProbeFailedError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as Stub

Family = Literal["any", "ipv4", "ipv6"]

NO_SUCH_NAME = "no-such-name"
RESOLVE_FAILED = "resolve-failed"

_A_DAY_S = 86_400.0
_LOOPBACK = {"localhost": ("127.0.0.1", "::1")}
_VERSIONS = {"any": (4, 6), "ipv4": (4,), "ipv6": (6,)}
_RECORDS = {4: "A", 6: "AAAA"}


class Resolver(Protocol):
    """Gives the addresses of a name; the caller connects to one of these and resolves nothing again."""

    async def addresses(self, name: str, family: Family) -> Sequence[Address]:
        """At least one address, those to try first in front; `any` gives IPv6 only to a name without IPv4.

        Raises ProbeFailedError (no-such-name, resolve-failed) and OSError. It may take forever.
        """
        ...


class SystemResolver:
    """The files that say how this host resolves, read again when they change."""

    def __init__(self, hosts: Path = Path("/etc/hosts"), resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        self._hosts_path = hosts
        self._hosts_read: tuple[int, dict[str, list[Address]]] = (0, {})
        self._resolv_conf = resolv_conf
        self._stub_read: tuple[int, Stub] | None = None

    async def addresses(self, name: str, family: Family) -> Sequence[Address]:
        """See Resolver. Single-label names follow `search` and `ndots` of resolv.conf; nsswitch.conf is not read."""
        found = self._in_hosts(name)
        for version in _VERSIONS[family]:
            some = [address for address in found if address.version == version]
            if some := some or ([] if found else await _ask(self.stub(), name, _RECORDS[version])):
                return some
        raise ProbeFailedError(NO_SUCH_NAME, f"{name} has no address of family {family}")

    def stub(self) -> "Stub":
        """A client of this host's name servers; imports dnspython. Raises ProbeFailedError."""
        from dns.asyncresolver import Resolver as Stub  # noqa: PLC0415 - 60 ms and 7 MB, only for those with names
        from dns.resolver import NoResolverConfiguration  # noqa: PLC0415

        changed = _changed_ns(self._resolv_conf)
        if self._stub_read is None or self._stub_read[0] != changed:
            try:
                self._stub_read = changed, Stub(str(self._resolv_conf))
            except (NoResolverConfiguration, OSError) as cause:
                raise ProbeFailedError(RESOLVE_FAILED, f"{self._resolv_conf}: {cause}") from cause
        return self._stub_read[1]

    def _in_hosts(self, name: str) -> list[Address]:
        changed = _changed_ns(self._hosts_path)
        if self._hosts_read[0] != changed:
            self._hosts_read = changed, _read_hosts(self._hosts_path)
        return self._hosts_read[1].get(name.lower().rstrip("."), [])


async def _ask(stub: "Stub", name: str, record: str) -> list[Address]:
    """What the name servers say; [] for a name without such a record."""
    from dns.exception import DNSException  # noqa: PLC0415 - see SystemResolver.stub
    from dns.resolver import NXDOMAIN  # noqa: PLC0415

    try:
        answer = await stub.resolve(name, record, search=True, raise_on_no_answer=False, lifetime=_A_DAY_S)
    except NXDOMAIN as cause:
        raise ProbeFailedError(NO_SUCH_NAME, f"{name}: the name servers know no such name") from cause
    except DNSException as cause:
        raise ProbeFailedError(RESOLVE_FAILED, f"{name}: {cause}") from cause
    return [ip_address(data.address) for data in answer.rrset or ()]


def _read_hosts(path: Path) -> dict[str, list[Address]]:
    names = {name: [ip_address(text) for text in texts] for name, texts in _LOOPBACK.items()}
    own: dict[str, list[Address]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return names  # a host may do without the file
    for line in lines:
        text, *aliases = line.partition("#")[0].split() or [""]
        try:
            address = ip_address(text)
        except ValueError:
            continue
        for alias in aliases:
            own.setdefault(alias.lower().rstrip("."), []).append(address)
    return names | own


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


SYSTEM_RESOLVER = SystemResolver()
