"""Users of the SQL endpoint without an engine: hashes, the file, `fleetbeat sql passwd`, sessions, blocks joined."""

import asyncio
import io
from pathlib import Path

import pytest

import fleetbeat
from schemas.documents import DocumentError
from streams.archive.gate import RefusedError
from streams.archive.passwords import PasswordHash
from streams.archive.sql_limits import Limits
from streams.archive.sql_sessions import SessionRequest, Sessions, read_session
from streams.archive.sql_stream import Joiner, can_stream
from streams.archive.sql_users import Login, Users, WrongLoginError, load_users

GOOD = "correct horse"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.yaml"


def passwd(monkeypatch: pytest.MonkeyPatch, name: str, file: Path, password: str = GOOD) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    return fleetbeat.main(["sql", "passwd", name, "--file", str(file)])


def test_a_hash_fits_its_password_only() -> None:
    one, two = PasswordHash.of(GOOD), PasswordHash.of(GOOD)
    assert str(one) != str(two)
    assert PasswordHash.parse(str(one)) == one
    assert [one.fits(text) for text in (GOOD, GOOD + "\0", GOOD.upper(), "")] == [True, False, False, False]


@pytest.mark.parametrize(
    "text",
    ["", GOOD, "scrypt$1$8$1$AAAA$AAAA", "md5$14$8$1$AAAA$AAAA", "scrypt$30$8$1$" + "A" * 24 + "$" + "A" * 44, 5],
)
def test_what_is_no_hash_is_not_shown(text: object) -> None:
    with pytest.raises(ValueError, match="expected what `fleetbeat sql passwd NAME` makes") as problem:
        PasswordHash.parse(text)
    assert not text or str(text) not in str(problem.value)


def test_passwd_makes_and_changes_a_user_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert passwd(monkeypatch, "grafana", file) == 0
    file.write_text(
        file.read_text(encoding="utf-8") + "    # ours\n    limits: {running: 2}\n    scopes: [telemetry, system]\n",
        encoding="utf-8",
    )
    users = Users(file, Limits())
    user = users.check(Login("grafana", GOOD))
    assert (user.limits.running, user.limits.threads, user.sees_system) == (2, Limits().threads, True)
    assert passwd(monkeypatch, "grafana", file, "another one") == 0
    assert passwd(monkeypatch, "second", file) == 0
    text = file.read_text(encoding="utf-8")
    assert "# ours" in text
    assert GOOD not in text
    assert file.stat().st_mode & 0o777 == 0o600
    again = Users(file, Limits())
    assert len(again) == 2
    assert again.check(Login("grafana", "another one")).limits.running == 2
    with pytest.raises(WrongLoginError):
        again.check(Login("grafana", GOOD))


@pytest.mark.parametrize(("name", "password"), [("a b", GOOD), ("a", "short"), ("a", "x" * 2_000), ("a", "zero\0byte")])
def test_passwd_refuses(monkeypatch: pytest.MonkeyPatch, file: Path, name: str, password: str) -> None:
    assert passwd(monkeypatch, name, file, password) == 2
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("users: {a: {password: %}}", 0o644, "mode 0644: everybody on this machine may use it"),
        ("users: {a: {password: 12345678}}", 0o600, "users.a.password: not a password's hash"),
        ("users: {a: {password: %, limits: {running: 0}}}", 0o600, "users.a.limits.running: value 0"),
        ("users: {a: {password: %, scopes: [all]}}", 0o600, "users.a.scopes.0: value 'all'"),
        ("users: {a: {password: %, limit: {}}}", 0o600, "users.a.limit: unknown key"),
        ("users: {}", 0o600, "users: value"),
    ],
)
def test_an_unusable_file_says_where_and_shows_no_password(file: Path, text: str, mode: int, said: str) -> None:
    hashed = str(PasswordHash.of(GOOD))
    file.write_text(text.replace("%", hashed), encoding="utf-8")
    file.chmod(mode)
    with pytest.raises(DocumentError) as problem:
        load_users(file, Limits())
    assert said in str(problem.value)
    assert "12345678" not in str(problem.value)
    assert hashed not in str(problem.value)


def test_an_address_for_others_needs_users(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streams.archive.app.configure_logs", lambda _: None)  # of this process, for all tests after it
    store = ["archive", "--listen", "0.0.0.0:8123", "--store", str(tmp_path / "store")]
    assert fleetbeat.main(store) == 2
    assert "--listen without --sql-users: value '0.0.0.0:8123': not a loopback address" in capsys.readouterr().err
    assert passwd(monkeypatch, "a", file) == 0
    file.chmod(0o604)
    assert fleetbeat.main([*store, "--sql-users", str(file)]) == 2
    assert "everybody on this machine" in capsys.readouterr().err
    assert fleetbeat.main(["archive", "--clickhouse", "http://c:8123", "--sql-users", str(file)]) == 2
    assert not (tmp_path / "store").exists()


def test_sessions_are_bounded_and_those_with_settings_stay() -> None:
    async def run() -> None:
        sessions = Sessions()
        told = await sessions.take("a", SessionRequest("told"), 2)
        told.change({"max_threads": "1"}, None)
        sessions.give_back("a", SessionRequest("told"))
        for number in range(5):
            await sessions.take("a", SessionRequest(f"idle-{number}"), 2)
            sessions.give_back("a", SessionRequest(f"idle-{number}"))
        await sessions.take("b", SessionRequest("told"), 2)
        assert len(sessions) == 3
        assert (await sessions.take("a", SessionRequest("told", must_exist=True), 2)).settings == {"max_threads": "1"}
        await sessions.take("a", SessionRequest("new"), 2)
        with pytest.raises(RefusedError, match="Too many sessions: 2 of a"):
            await sessions.take("a", SessionRequest("more"), 2)
        with pytest.raises(RefusedError, match="SESSION_IS_LOCKED"):
            await sessions.take("a", SessionRequest("told"), 2)

    asyncio.run(run())


@pytest.mark.parametrize("timeout", ["0", "-1", "3601", "x", "9" * 40])
def test_a_session_has_a_time(timeout: str) -> None:
    assert read_session({}) is None
    assert read_session({"session_id": "a", "session_timeout": "3600"}) == SessionRequest("a", 3_600)
    with pytest.raises(RefusedError, match="INVALID_SESSION_TIMEOUT"):
        read_session({"session_id": "a", "session_timeout": timeout})


def test_headers_of_later_blocks_are_taken_off() -> None:
    csv = Joiner("CSVWithNames")
    assert csv.add(b'"a","b\n"\n1,2\n') + csv.add(b'"a","b\n"\n3,4\n') + csv.end() == b'"a","b\n"\n1,2\n3,4\n'
    binary = Joiner("RowBinaryWithNamesAndTypes")
    assert (
        binary.add(b"\x01\x01a\x05UInt8\x01") + binary.add(b"\x01\x01a\x05UInt8\x02") == b"\x01\x01a\x05UInt8\x01\x02"
    )
    other = Joiner("CSVWithNames")
    other.add(b'"a"\n1\n')
    with pytest.raises(ValueError, match="begins with"):
        other.add(b'"b"\n1\n')


@pytest.mark.parametrize(
    ("output_format", "settings", "can"),
    [
        ("TSV", {}, True),
        ("jsoneachrow", {}, True),
        ("JSONEachRow", {"output_format_json_array_of_rows": "1"}, False),
        ("TSV", {"extremes": "1"}, False),
        ("RowBinaryWithNamesAndTypes", {"output_format_binary_encode_types_in_binary_format": "1"}, False),
        ("TSV", {"extremes": "0"}, True),
        ("JSON", {}, False),
        ("Parquet", {}, False),
        ("Values", {}, False),
    ],
)
def test_what_is_one_document_is_not_streamed(output_format: str, settings: dict[str, str], can: bool) -> None:  # noqa: FBT001 - a column of the table
    assert can_stream(output_format, settings) is can
