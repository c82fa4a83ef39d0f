"""Where probes do not go, and what they do not tell: against real servers, name servers and certificates."""

import asyncio
import datetime as dt
import json
from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agents.probes.base import Down, Outcome, Up
from agents.probes.http import HttpConfig, HttpProbe
from agents.probes.tcp import TcpConfig, TcpProbe
from agents.probes.tls import TlsConfig, TlsProbe
from tests.integration.probe_servers import (
    LOOPBACK,
    OK,
    Certificate,
    Web,
    make_certificate,
    name_server,
    redirect,
    resolver_at,
    serving,
    silent,
)

METADATA = "169.254.169.254"
SECRET = "Bearer c0ffee-c0ffee"  # noqa: S105 - a made-up one, to be looked for

RECORDS = {
    ("rebind.test.", "A"): [METADATA],
    ("mixed.test.", "A"): [LOOPBACK, METADATA],
    ("mapped.test.", "AAAA"): ["::ffff:169.254.169.254"],
    ("shop.test.", "A"): [LOOPBACK],
}


def http(url: str, **config: object) -> HttpProbe:
    return HttpProbe(HttpConfig.model_validate({"url": url, **config}))


def down(outcome: Outcome, reason: str = "forbidden-target") -> str:
    assert isinstance(outcome, Down), outcome
    assert outcome.reason == reason, outcome
    return outcome.detail


def run(probe: HttpProbe | TcpProbe | TlsProbe) -> Outcome:
    return asyncio.run(probe.run(5.0))


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "0.0.0.0", "[::]", "224.0.0.1", "[fe80::1]",
     "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]",
     "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"],
)  # fmt: skip
def test_a_forbidden_address_is_refused_however_it_is_written(host: str) -> None:
    assert host.strip("[]").split(":")[0] in down(run(http(f"http://{host}/latest/meta-data/")))
    assert down(run(TcpProbe(TcpConfig(host=host.strip("[]"), port=80))))
    assert down(run(TlsProbe(TlsConfig(host=host.strip("[]")))))


@pytest.mark.parametrize("host", [METADATA, "[::ffff:a9fe:a9fe]", "2852039166"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_the_metadata_service_is_refused(host: str, status: int) -> None:
    async def main() -> Outcome:
        async with serving(Web(redirect(f"http://{host}/latest/meta-data/", status))) as port:
            return await http(f"http://{LOOPBACK}:{port}/").run(5.0)

    outcome = asyncio.run(main())
    assert down(outcome)
    assert outcome.notes[0].startswith(f"{status} from http://127.0.0.1:")


@pytest.mark.parametrize("name", ["rebind.test", "mixed.test", "mapped.test"])
def test_a_name_with_a_forbidden_address_is_refused_before_anything_is_connected(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        web = Web()
        async with serving(web) as port, name_server(RECORDS) as (_, dns_port):
            resolver = resolver_at(dns_port, tmp_path)
            probe = HttpProbe(HttpConfig(url=f"http://{name}:{port}/"), resolver)
            outcome = await probe.run(5.0)
            assert "169.254.169.254" in down(outcome) or "a9fe:a9fe" in down(outcome)
            assert outcome.phases.connect_us is None
            redirecting = Web(redirect(f"http://{name}/"))
            async with serving(redirecting) as other:
                assert down(await HttpProbe(HttpConfig(url=f"http://shop.test:{other}/"), resolver).run(5.0))
            in_hosts = resolver_at(dns_port, tmp_path, hosts=f"{METADATA} inside")
            assert down(await HttpProbe(HttpConfig(url="http://inside/"), in_hosts).run(5.0))
        assert web.requests == []

    asyncio.run(main())


def test_a_name_is_resolved_once_so_that_its_address_cannot_change_after_the_check(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Web()) as port, name_server(RECORDS) as (server, dns_port):
            resolver = resolver_at(dns_port, tmp_path)
            assert isinstance(await HttpProbe(HttpConfig(url=f"http://shop.test:{port}/"), resolver).run(5.0), Up)
            assert server.asked == [("shop.test.", "A")]

    asyncio.run(main())


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[Outcome, list[bytes]]:
        proxy = Web()
        async with serving(proxy) as proxy_port, serving(Web()) as port:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://{LOOPBACK}:{proxy_port}")
            return await http(f"http://{LOOPBACK}:{port}/").run(5.0), proxy.requests

    outcome, proxied = asyncio.run(main())
    assert isinstance(outcome, Up)
    assert proxied == []


def secret_file(folder: Path, content: str = f"{SECRET}\n", mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    return path


def test_secrets_go_to_their_origin_and_on_its_own_redirects(tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        web = Web(lambda request: redirect("/b") if b" /a " in request else OK)
        async with serving(web) as port:
            probe = http(f"http://{LOOPBACK}:{port}/a", header_files={"authorization": secret_file(tmp_path)})
            outcome = await probe.run(5.0)
            assert isinstance(outcome, Up), outcome
            assert SECRET not in str(asdict(outcome))
        return web.requests

    requests = asyncio.run(main())
    assert len(requests) == 2
    assert [SECRET.encode() in request for request in requests] == [True, True]


def test_nothing_of_the_config_and_no_cookie_follows_to_another_origin_or_back_again(tmp_path: Path) -> None:
    async def main() -> tuple[Web, Web]:
        home, stranger = Web(), Web()
        async with serving(home) as port, serving(stranger) as other:
            away = redirect(f"http://{LOOPBACK}:{other}/steal").replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")
            home.answer = lambda request: OK if b" /back " in request else away
            stranger.answer = redirect(f"http://{LOOPBACK}:{port}/back")
            config = {
                "header_files": {"authorization": secret_file(tmp_path)},
                "headers": {"x-key": "k", "host": "shop"},
            }
            outcome = await http(f"http://{LOOPBACK}:{port}/", **config).run(5.0)
            assert isinstance(outcome, Up), outcome
        return home, stranger

    home, stranger = asyncio.run(main())
    assert SECRET.encode() in home.requests[0]
    for request in (*stranger.requests, *home.requests[1:]):
        lowered = request.lower()
        assert b"authorization" not in lowered
        assert b"x-key" not in lowered
        assert b"cookie" not in lowered
        assert b"host: 127.0.0.1:" in lowered


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        pytest.param(SECRET, 0o644, "mode 0644: others can get at it; expected 0600", id="readable by everyone"),
        pytest.param(SECRET, 0o620, "mode 0620: its group can get at it", id="writable by its group"),
        pytest.param("", 0o600, "empty; expected a secret in it", id="empty"),
        pytest.param("a\r\nX-Injected: b", 0o600, "more than one line", id="two lines"),
        pytest.param("ключ", 0o600, "expected one line", id="not ASCII"),
        pytest.param("x" * 20_000, 0o600, "expected one line", id="too long"),
        pytest.param(None, 0o600, "cannot be read: no such file", id="missing"),
    ],
)
def test_a_secret_file_that_cannot_be_used_stops_the_request(
    content: str | None, mode: int, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "token" if content is None else secret_file(tmp_path, content, mode)
    web = Web()

    async def main() -> Outcome:
        async with serving(web) as port:
            return await http(f"http://{LOOPBACK}:{port}/", header_files={"authorization": path}).run(5.0)

    detail = down(asyncio.run(main()), "credentials")
    assert complaint in detail
    assert SECRET not in detail
    assert web.requests == []


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ({"bearer_file": "token"}, f"Bearer {SECRET}"),
        (
            {"basic": {"username": "shop", "password_file": "token"}},
            f"Basic {b64encode(f'shop:{SECRET}'.encode()).decode()}",
        ),
    ],
)
def test_who_a_probe_says_it_is_stands_in_files_that_are_read_again_and_goes_to_one_origin_only(
    auth: dict[str, Any], sent: str, tmp_path: Path
) -> None:
    path = secret_file(tmp_path)
    text = json.dumps(auth).replace('"token"', json.dumps(str(path)))

    async def main() -> tuple[Web, Web]:
        home, stranger = Web(), Web()
        async with serving(home) as port, serving(stranger) as other:
            probe = http(f"http://{LOOPBACK}:{port}/", auth=json.loads(text))
            home.answer = redirect(f"http://{LOOPBACK}:{other}/steal")
            outcomes = [await probe.run(5.0)]
            path.write_text("renewed", encoding="utf-8")
            outcomes.append(await probe.run(5.0))
            path.chmod(0o644)
            outcomes.append(await probe.run(5.0))
        assert isinstance(outcomes[0], Up), outcomes[0]
        assert "others can get at it" in down(outcomes[2], "credentials")
        assert SECRET not in str([asdict(outcome) for outcome in outcomes])
        assert "renewed" not in str([asdict(outcome) for outcome in outcomes])
        return home, stranger

    home, stranger = asyncio.run(main())
    assert len(home.requests) == len(stranger.requests) == 2
    assert f"\r\nAuthorization: {sent}\r\n".encode() in home.requests[0]
    assert sent.encode() not in home.requests[1]
    assert b"Authorization" in home.requests[1]
    assert all(b"authorization" not in request.lower() for request in stranger.requests)


@pytest.fixture(scope="module")
def localhost(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    day = dt.timedelta(days=1)
    return make_certificate(tmp_path_factory.mktemp("good"), "localhost", (-day, 30 * day))


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    day = dt.timedelta(days=1)
    return make_certificate(tmp_path_factory.mktemp("old"), "localhost", (-30 * day, -day))


def test_from_https_to_http_with_credentials_is_refused(localhost: Certificate, tmp_path: Path) -> None:
    async def main() -> None:
        plain, tls = Web(), Web()
        async with serving(plain) as port, serving(tls, localhost.server) as tls_port:
            tls.answer = redirect(f"http://{LOOPBACK}:{port}/")
            config = {"url": f"https://localhost:{tls_port}/", "tls": {"ca_file": localhost.certificate}}
            files = {"authorization": secret_file(tmp_path)}
            outcome = await HttpProbe(HttpConfig.model_validate({**config, "header_files": files})).run(5.0)
            assert down(outcome) == f"http://{LOOPBACK}:{port}/: from https to http with credentials"
            assert plain.requests == []
            outcome = await HttpProbe(HttpConfig.model_validate(config)).run(5.0)
            assert isinstance(outcome, Up), outcome  # without credentials there is nothing to lose

    asyncio.run(main())


def test_https_is_up_with_the_phases_of_tls_and_the_end_of_the_certificate(localhost: Certificate) -> None:
    async def main() -> Outcome:
        async with serving(Web(), localhost.server) as port:
            return await http(f"https://localhost:{port}/", tls={"ca_file": localhost.certificate}).run(5.0)

    outcome = asyncio.run(main())
    assert isinstance(outcome, Up), outcome
    assert outcome.phases.resolve_us is not None
    assert outcome.phases.tls_us
    in_30_days_ms = (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).timestamp() * 1_000
    assert abs((outcome.cert_expires_ms or 0) - in_30_days_ms) < 600_000


def test_https_can_ask_for_a_certificate_that_is_valid_for_long_enough(localhost: Certificate) -> None:
    async def main() -> None:
        async with serving(Web(), localhost.server) as port:
            for days, reason in ((29, None), (31, "certificate-expires")):
                config = {"tls": {"ca_file": localhost.certificate}, "expect": {"min_valid_days": days}}
                outcome = await http(f"https://localhost:{port}/", **config).run(5.0)
                assert (outcome.reason if isinstance(outcome, Down) else None) == reason, outcome

    asyncio.run(main())


@pytest.mark.parametrize(
    ("config", "reason", "complaint"),
    [
        pytest.param({}, None, "", id="the certificate is known"),
        pytest.param({"min_valid_days": 29}, None, "", id="valid for long enough"),
        pytest.param(
            {"min_valid_days": 31}, "certificate-expires", "days; expected 31", id="not valid for long enough"
        ),
        pytest.param({"host": LOOPBACK}, None, "", id="known by its address"),
        pytest.param({"server_name": "shop.test"}, "certificate-invalid", "Hostname mismatch", id="of someone else"),
        pytest.param({"ca_file": None}, "certificate-invalid", "self-signed certificate", id="signed by nobody known"),
        pytest.param({"ca_file": None, "verify": False}, None, "", id="signed by nobody known, as is allowed"),
        pytest.param({"ca_file": "/nowhere.pem"}, "ca-file", "/nowhere.pem: No such file", id="no file of authorities"),
    ],
)
def test_tls_knows_whom_it_speaks_to(
    config: dict[str, Any], reason: str | None, complaint: str, localhost: Certificate
) -> None:
    async def main() -> Outcome:
        async with serving(silent, localhost.server) as port:
            whole = {"host": "localhost", "port": port, "ca_file": localhost.certificate, **config}
            return await TlsProbe(TlsConfig.model_validate(whole)).run(5.0)

    outcome = asyncio.run(main())
    if reason is None:
        assert isinstance(outcome, Up), outcome
        assert (outcome.cert_expires_ms is None) == (config.get("verify") is False)
    else:
        assert complaint in down(outcome, reason)


def test_an_expired_certificate_is_told_apart(expired: Certificate) -> None:
    async def main() -> Outcome:
        async with serving(silent, expired.server) as port:
            return await TlsProbe(TlsConfig(host="localhost", port=port, ca_file=expired.certificate)).run(5.0)

    assert "expired" in down(asyncio.run(main()), "certificate-expired")


def test_https_to_a_server_without_tls_fails_in_the_handshake() -> None:
    async def ssh(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await writer.drain()

    async def main() -> Outcome:
        async with serving(ssh) as port:
            return await http(f"https://localhost:{port}/").run(5.0)

    assert "WRONG_VERSION_NUMBER" in down(asyncio.run(main()), "tls-failed")
