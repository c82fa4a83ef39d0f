"""TLS against servers that are wrong in one way each, and certificates that change while a client runs."""

import asyncio
import shutil
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.kafka.certificates import Authority, Certificate
from schemas.kafka import SecuredBrokers, Security, Tls
from schemas.kafka.reasons import refusal
from schemas.kafka.tls import CertificateError, RenewingContext
from schemas.secret_files import SecretFileError

LOOPBACK = "127.0.0.1"
HERE = ("IP:127.0.0.1",)


@dataclass(slots=True)
class Server:
    """Answers nothing: each connection is closed once its handshake is done."""

    port: int = 0
    clients: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    async def greet(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = writer.get_extra_info("ssl_object")
        if session is not None:
            self.versions.add(session.version())
            for pairs in (session.getpeercert() or {}).get("subject", ()):
                self.clients += [value for name, value in pairs if name == "commonName"]
        writer.close()


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.greet, LOOPBACK, 0, ssl=context)
    async with listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


def served(own: Certificate, clients: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert_file, own.key_file)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    return context


async def said(context: ssl.SSLContext | None, security: Security) -> str:
    async with serving(context) as server:
        found = await refusal(security.at(f"{LOOPBACK}:{server.port}"))
        return (found or "").removeprefix(f"{LOOPBACK}:{server.port}: ")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_each_wrong_server_is_refused_for_its_own_reason(authority: Authority, tmp_path: Path) -> None:
    good = authority.issue("good", HERE)
    another = Authority(tmp_path / "another")
    ours = Security(Tls(authority.ca_file))
    refused = "the broker's certificate is refused: "
    by = f"; expected one for this host, vouched for by {authority.ca_file}"

    async def all_of_them() -> None:
        elsewhere = authority.issue("elsewhere", ["DNS:kafka1.example.org"])
        mismatch = "IP address mismatch, certificate is not valid for '127.0.0.1'."
        assert await said(served(elsewhere), ours) == f"{refused}{mismatch}{by}"
        assert await said(served(authority.issue("old", HERE, days=0)), ours) == f"{refused}certificate has expired{by}"
        strange = await said(served(another.issue("strange", HERE)), ours)
        assert strange == f"{refused}unable to get local issuer certificate{by}"
        unknown = await said(served(good), Security(Tls()))
        assert unknown.endswith("; expected one for this host, vouched for by the system's authorities")
        # What is good is refused for nothing but its silence.
        assert "certificate" not in await said(served(good), ours)

    asyncio.run(all_of_them())


def test_a_connection_without_tls_to_a_port_with_it_and_the_other_way_round_is_told(authority: Authority) -> None:
    good = served(authority.issue("good", HERE))
    plain = asyncio.run(said(good, Security()))
    assert plain == "the broker ended the connection before it said anything; does it expect TLS (tls)?"

    async def to_a_plain_port() -> str:
        async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        listening = await asyncio.start_server(shout, LOOPBACK, 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            return await refusal(Security(Tls(authority.ca_file)).at(f"{LOOPBACK}:{port}")) or ""

    said_there = asyncio.run(to_a_plain_port())
    assert said_there.endswith(": no TLS is spoken at this port; expected one of the broker's TLS listeners")


def test_tls_1_1_is_not_spoken(authority: Authority) -> None:
    old = served(authority.issue("good", HERE))
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")

    def greet(listening: socket.socket) -> None:  # in a thread: asyncio's servers hang up without a reason
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            old.wrap_socket(connection, server_side=True)

    with socket.create_server((LOOPBACK, 0)) as listening, ThreadPoolExecutor(1) as threads:
        threads.submit(greet, listening)
        at = f"{LOOPBACK}:{listening.getsockname()[1]}"
        said = asyncio.run(refusal(Security(Tls(authority.ca_file)).at(at)))
    assert said == f"{at}: TLS: tlsv1 alert protocol version"


def test_a_connection_is_closed_without_waiting_for_the_brokers_goodbye(authority: Authority) -> None:
    good, over = served(authority.issue("good", HERE)), threading.Event()

    def hold(listening: socket.socket) -> None:  # in a thread: asyncio's servers answer a goodbye
        connection, _ = listening.accept()
        with connection, good.wrap_socket(connection, server_side=True):
            over.wait()

    async def leave(port: int, context: ssl.SSLContext, *, waits_s: float = 0.0) -> socket.socket:
        _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
        writer.close()
        left: socket.socket = writer.get_extra_info("socket")
        if waits_s:
            await asyncio.sleep(waits_s)
            assert left.fileno() >= 0
            writer.transport.abort()
        return left

    with socket.create_server((LOOPBACK, 0)) as listening, ThreadPoolExecutor(2) as threads:
        port = listening.getsockname()[1]
        try:
            threads.submit(hold, listening)
            assert asyncio.run(leave(port, RenewingContext(authority.ca_file, None, None))).fileno() < 0
            # Python's own way would hold the socket until the event loop has ended, and after that.
            threads.submit(hold, listening)
            asyncio.run(leave(port, ssl.create_default_context(cafile=authority.ca_file), waits_s=0.2))
        finally:
            over.set()


async def meet(server: Server, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port, ssl=context)
    await reader.read()
    writer.close()


def test_new_certificates_are_taken_at_the_next_connection_and_halves_of_them_are_not(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = Certificate(tmp_path / "mine.pem", tmp_path / "mine.key")

    def put(name: str, *, with_key: bool = True) -> None:
        made = authority.issue(name)
        shutil.copy(made.cert_file, mine.cert_file)
        if with_key:
            shutil.copy(made.key_file, mine.key_file)

    async def run() -> list[str]:
        put("first")
        context = RenewingContext(authority.ca_file, mine.cert_file, mine.key_file)
        async with serving(served(authority.issue("good", HERE), authority.ca_file)) as server:
            await meet(server, context)
            put("second")
            await meet(server, context)
            put("third", with_key=False)
            await meet(server, context)
            assert "new TLS files are not used" in caplog.text
            put("fourth")
            mine.key_file.chmod(0o604)
            await meet(server, context)
            mine.key_file.chmod(0o600)
            put("fifth")
            await meet(server, context)
            return server.clients

    assert asyncio.run(run()) == ["first", "second", "second", "second", "fifth"]


def test_a_new_authority_is_trusted_and_the_one_before_no_longer(authority: Authority, tmp_path: Path) -> None:
    another, trusted = Authority(tmp_path / "another"), tmp_path / "ca.pem"
    shutil.copy(authority.ca_file, trusted)

    async def run() -> None:
        context = RenewingContext(trusted, None, None)
        async with (
            serving(served(authority.issue("good", HERE))) as old,
            serving(served(another.issue("good", HERE))) as new,
        ):
            await meet(old, context)
            with pytest.raises(ssl.SSLCertVerificationError):
                await meet(new, context)
            shutil.copy(another.ca_file, trusted)
            await meet(new, context)
            with pytest.raises(ssl.SSLCertVerificationError):
                await meet(old, context)
            assert old.versions | new.versions == {"TLSv1.3"}

    asyncio.run(run())


def test_files_that_cannot_be_used_are_told_before_anything_starts(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue("own"), authority.issue("other")
    nothing = tmp_path / "nothing.pem"
    nothing.touch()

    def refused(tls: Tls) -> str:
        with pytest.raises((CertificateError, SecretFileError)) as caught:
            Security(tls).at("k:9093")
        assert isinstance(caught.value, ValueError)
        return str(caught.value)

    assert refused(Tls(nothing)) == f"tls.ca_file {nothing}: no certificate or crl found; expected certificates in PEM"
    nowhere = tmp_path / "nowhere.pem"
    assert refused(Tls(nowhere)) == f"tls.ca_file {nowhere}: no such file or directory; expected certificates in PEM"
    assert refused(Tls(None, own.cert_file, other.key_file)) == (
        f"tls.cert_file {own.cert_file} with tls.key_file {other.key_file}: key values mismatch; "
        "expected a certificate in PEM and its own key, not encrypted"
    )
    own.key_file.chmod(0o644)
    assert "mode 0644: others can get at it" in refused(Tls(None, own.cert_file, own.key_file))


def test_all_clients_of_a_process_share_one_context(authority: Authority) -> None:
    brokers = Security(Tls(authority.ca_file)).at("k:9093")
    assert isinstance(brokers, SecuredBrokers)
    context = brokers.settings["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
