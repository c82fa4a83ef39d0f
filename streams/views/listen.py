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


def parse_listen(text: str) -> ListenAddress:
    """`host:port` or `[v6]:port`. Raises ListenError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the last port there is
        message = f"listen: value {text!r}; expected host:port, such as 127.0.0.1:8080"
        raise ListenError(message)
    if not _is_loopback(host):
        message = (
            f"listen: value {text!r}: not a loopback address; expected 127.0.0.1 or ::1, "
            "because these views have no authentication yet (put a proxy that has it in front)"
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
