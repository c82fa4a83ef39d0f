"""Where any of our servers may listen: on loopback, unless whoever comes has to log in."""

import ipaddress
from dataclasses import dataclass

_LAST_PORT = 65_535


class ListenError(ValueError):
    """An address that cannot or must not be listened on."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str, option: str = "--listen", *, open_to_all: bool = False) -> ListenAddress:
    """The address an option gives. Raises ListenError, which names the option."""
    try:
        return listen_address(text, open_to_all=open_to_all)
    except ListenError as cause:
        raise ListenError(f"{option}: value {text!r}: {cause}") from None


def listen_address(text: str, *, open_to_all: bool = False) -> ListenAddress:
    """`host:port` or `[v6]:port`, port 0 for any. Raises ListenError, which says what was expected.

    With `open_to_all` the host may be any: everybody logs in there.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ListenError("expected HOST:PORT, such as 127.0.0.1:8080")
    if not open_to_all and not _is_loopback(host):
        raise ListenError(
            "not a loopback address; expected 127.0.0.1, ::1 or localhost, because nobody logs in there "
            "(put a proxy that has authentication in front)"
        )
    return ListenAddress(host, int(port))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
