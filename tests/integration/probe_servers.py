"""Servers of every kind of manners for probes to meet: on loopback, on ports of their own, gone at the end."""

import asyncio
import datetime as dt
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import dns.message
import dns.rcode
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agents.probes.resolver import SystemResolver

LOOPBACK = "127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None, host: str = LOOPBACK) -> AsyncIterator[int]:
    """The port of a server that talks like this to each client; its conversations end with it."""
    talks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        talks.add(me)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await talk(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
            talks.discard(me)

    server = await asyncio.start_server(converse, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


@dataclass
class Web:
    """Answers each request as scripted, once a connection, and remembers what was asked."""

    answer: bytes | Callable[[bytes], bytes] = OK
    requests: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        writer.write(self.answer if isinstance(self.answer, bytes) else self.answer(request))
        await writer.drain()


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Listens politely and never says a word."""
    while await reader.read(1024):
        pass


def dripping(text: bytes, every_s: float = 0.02) -> Talk:
    """A byte now and then, for ever once the text is said."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = 0
        while True:
            writer.write(text[said : said + 1] or b"x")
            await writer.drain()
            said += 1
            await asyncio.sleep(every_s)

    return talk


@contextmanager
def blackhole() -> Iterator[int]:
    """A port where connecting hangs: its queue of connections is full, and nobody accepts any."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        address = listener.getsockname()
        fill: list[socket.socket] = []
        while True:
            fill.append(socket.socket())
            fill[-1].settimeout(0.1)
            try:
                fill[-1].connect(address)
            except TimeoutError:
                break
        try:
            yield address[1]
        finally:
            for one in fill:
                one.close()


_RCODES = {"refused": dns.rcode.REFUSED, "servfail": dns.rcode.SERVFAIL}


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Answers from a table of (name, type); silent on names that end in .hang., an rcode for the rest.

    That is the first label's, as of refused.test., or NXDOMAIN.
    """

    records: Mapping[tuple[str, str], Sequence[str]]
    asked: list[tuple[str, str]] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        if answer := self.answer(data):
            self.transport.sendto(answer, addr)

    async def over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The same over a stream, where each message has its length in front."""
        size = int.from_bytes(await reader.readexactly(2))
        if answer := self.answer(await reader.readexactly(size)):
            writer.write(len(answer).to_bytes(2) + answer)
            await writer.drain()

    def answer(self, data: bytes) -> bytes | None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, record = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, record))
        if name.endswith(".hang."):
            return None
        answer = dns.message.make_response(query)
        if name not in {known for known, _ in self.records}:
            answer.set_rcode(_RCODES.get(name.partition(".")[0], dns.rcode.NXDOMAIN))
        elif texts := self.records.get((name, record)):
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", record, *texts))
        return answer.to_wire()


@asynccontextmanager
async def name_server(
    records: Mapping[tuple[str, str], Sequence[str]], port: int = 0
) -> AsyncIterator[tuple[NameServer, int]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(records), local_addr=(LOOPBACK, port))
    try:
        yield server, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def resolver_at(port: int, folder: Path, hosts: str = "", search: str = "") -> SystemResolver:
    """The resolver that agents use, on files of its own and this name server."""
    (folder / "hosts").write_text(hosts, encoding="utf-8")
    (folder / "resolv.conf").write_text(f"nameserver {LOOPBACK}\n{search}\n", encoding="utf-8")
    resolver = SystemResolver(folder / "hosts", folder / "resolv.conf")
    resolver.stub().port = port  # resolv.conf knows no ports
    return resolver


@dataclass(frozen=True)
class Certificate:
    """A key and a certificate that signs itself, in one file each."""

    certificate: Path
    key: Path

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificate(folder: Path, name: str, valid: tuple[dt.timedelta, dt.timedelta]) -> Certificate:
    """For `name` and 127.0.0.1, valid from and until so much after now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    made.certificate.write_bytes(certificate.public_bytes(pem))
    made.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return made


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a look at the kernel, not at files
