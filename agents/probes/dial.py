"""The only way out for probes over TCP: resolve once, check every address, connect to a checked one, then TLS."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agents.probes.addresses import Address, literal, refusal
from agents.probes.base import FORBIDDEN_TARGET, Phase
from agents.probes.resolver import Family, Resolver
from agents.probes.trust import TlsSettings, context_of
from agents.probes.watch import ProbeFailedError, ProbeInvalidError, Watch, explain

_IPV4 = 4
_HANDSHAKE_S = 86_400.0  # no limit of its own: the deadline of the probe ends a handshake
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
# What other resolvers take for an address, such as 2852039166, 0xa9fea9fe or 169.254.43518 (WHATWG URL, 4.3.5).
_ENDS_IN_A_NUMBER = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and whether a TLS handshake follows."""

    host: str
    port: int
    family: Family = "any"
    tls: TlsSettings | None = None
    alpn: tuple[str, ...] = ()


class Conversation(asyncio.Protocol):
    """One connection: `heard` is done when enough was heard or nothing more will come, `lost` when it is closed."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.heard: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def enough(self) -> None:
        """Nothing more is needed."""
        if not self.heard.done():
            self.heard.set_result(None)

    def fail(self, reason: str, detail: str) -> None:
        """What was heard ends the probe as Down."""
        if not self.heard.done():
            self.heard.set_exception(ProbeFailedError(reason, detail))
            self.heard.exception()  # seen: a run that is cancelled at this moment never asks for it

    def refuse(self, validator: str, detail: str) -> None:
        """What was heard is not what is expected."""
        if not self.heard.done():
            self.heard.set_exception(ProbeInvalidError(validator, detail))
            self.heard.exception()

    def closed(self) -> None:
        """The other side will say no more; overridden by those who wait for something."""
        self.enough()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if isinstance(exc, OSError):
            reason, text = ("tls-failed", exc.reason) if isinstance(exc, ssl.SSLError) else explain(exc)
            self.fail(reason, f"connection lost: {text}")
        self.closed()
        if not self.lost.done():
            self.lost.set_result(None)


@asynccontextmanager
async def dialled(
    target: Target, conversation: Conversation, resolver: Resolver, watch: Watch
) -> AsyncIterator[asyncio.Transport]:
    """A conversation with an allowed target, closed at the end. Raises ProbeFailedError and what resolvers raise."""
    sock = await _connect_any(await allowed_addresses(target, resolver, watch), target.port, watch)
    transport = await _begin(sock, target, conversation, watch)
    try:
        yield transport
    finally:
        transport.abort()
        await conversation.lost


async def allowed_addresses(target: Target, resolver: Resolver, watch: Watch) -> Sequence[Address]:
    """The addresses to connect to; one forbidden address among them refuses the target. Raises ProbeFailedError."""
    host = target.host
    try:
        address = literal(host)
    except ValueError as cause:
        raise ProbeFailedError(FORBIDDEN_TARGET, str(cause)) from cause
    if address is None and _ENDS_IN_A_NUMBER.search(host):
        raise ProbeFailedError(FORBIDDEN_TARGET, f"{host}: a number, but no address in its usual form")
    if address is None:
        watch.enter(Phase.RESOLVE)
        addresses = await resolver.addresses(host, target.family)
        watch.note(f"{host} is {', '.join(map(str, addresses))}")
    else:
        addresses = [address]
    for one in addresses:
        if kind := refusal(one):
            who = host if address else f"{host} is {one}"
            raise ProbeFailedError(FORBIDDEN_TARGET, f"{who}: {kind}")
    return addresses


async def _connect_any(addresses: Sequence[Address], port: int, watch: Watch) -> socket.socket:
    """A socket connected to the first address that accepts."""
    watch.enter(Phase.CONNECT)
    *others, last = addresses
    for address in others:
        try:
            return await _connect(address, port)
        except OSError as cause:
            watch.note(f"{address} port {port}: {explain(cause)[1]}; the next address is tried")
    try:
        return await _connect(last, port)
    except OSError as cause:
        reason, text = explain(cause)
        raise ProbeFailedError(reason, f"{last} port {port}: {text}") from cause


async def _connect(address: Address, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET if address.version == _IPV4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the socket module takes it so
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _begin(sock: socket.socket, target: Target, conversation: Conversation, watch: Watch) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {}
    if target.tls is not None:
        watch.enter(Phase.TLS)
        try:
            options["ssl"] = context_of(target.tls, target.alpn)
        except BaseException:
            sock.close()
            raise
        options |= {"server_hostname": target.tls.server_name or target.host, "ssl_handshake_timeout": _HANDSHAKE_S}
    try:
        # From here on asyncio owns the socket, and closes it also when the handshake fails or is cancelled.
        transport, _ = await loop.create_connection(lambda: conversation, sock=sock, **options)
    except ssl.SSLCertVerificationError as cause:
        reason = "certificate-expired" if cause.verify_code == _EXPIRED else "certificate-invalid"
        raise ProbeFailedError(reason, f"{options['server_hostname']}: {cause.verify_message}") from cause
    except ssl.SSLError as cause:
        raise ProbeFailedError("tls-failed", f"{options['server_hostname']}: {cause.reason or cause}") from cause
    certificate = transport.get_extra_info("peercert")
    if certificate:  # empty without verification
        watch.cert_expires_ms = round(ssl.cert_time_to_seconds(certificate["notAfter"])) * 1_000
        watch.note(f"certificate of {options['server_hostname']} is valid until {certificate['notAfter']}")
    return transport
