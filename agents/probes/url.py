"""URLs of probes: strict, so that what is checked, connected to and asked for is one and the same host."""

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from agents.probes.addresses import literal
from agents.probes.settings import check_host

MAX_URL = 4_096
_PORTS = {"http": 80, "https": 443}
# ASCII without blanks, control characters and the backslash, which browsers take for a slash and others do not.
_ALLOWED = re.compile(r"[!-\[\]-~]+")
_KEPT = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "\\")


@dataclass(frozen=True, slots=True)
class Url:
    """`target` is what a request line asks for: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What has to be the same for secrets to be sent."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For messages: without the query, where people put secrets."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"


def parse_url(text: str) -> Url:
    """A URL with scheme http or https and no credentials. Raises ValueError, which does not repeat the URL."""
    if len(text) > MAX_URL or not _ALLOWED.fullmatch(text):
        raise ValueError(f"expected 1 to {MAX_URL} printable ASCII characters without blanks and backslashes")
    parts = urlsplit(text)
    if parts.scheme not in _PORTS:
        raise ValueError(f"scheme {parts.scheme!r}; expected http or https")
    if "@" in parts.netloc:
        raise ValueError("credentials in the URL; expected them in a file (header_files)")
    port = parts.port or _PORTS[parts.scheme]  # raises ValueError beyond 65535
    if not parts.hostname or "%" in parts.netloc:
        raise ValueError("host missing or with a zone; expected a host name or an IP address")
    address = literal(parts.hostname)
    host = str(address) if address else check_host(parts.hostname)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, host, port, target)


def follow(base: Url, location: str) -> Url:
    """Where a Location header leads, relative or not. Raises ValueError."""
    here = f"{base.scheme}://{base.authority}{base.target}"
    if "\\" in location:
        raise ValueError("a backslash; expected a URL")
    return parse_url(urljoin(here, quote(location.strip(), safe=_KEPT, encoding="latin-1")))
