"""Addresses to listen on; anything but loopback is refused until there is authentication."""

import ipaddress
from dataclasses import dataclass


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


def parse_listen(text: str, option: str = "--listen") -> ListenAddress:
    """`host:port` or `[v6]:port`, port 0 for any. Raises ListenError, which names the option."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the last port there is
        message = f"{option}: value {text!r}; expected HOST:PORT, such as 127.0.0.1:8080"
        raise ListenError(message)
    if not _is_loopback(host):
        message = (
            f"{option}: value {text!r}: not a loopback address; expected 127.0.0.1, ::1 or localhost, "
            "because nobody logs in here yet (put a proxy that has authentication in front)"
        )
        raise ListenError(message)
    return ListenAddress(host, int(port))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
