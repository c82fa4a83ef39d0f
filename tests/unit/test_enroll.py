"""Keys of nodes and masters as files: made by `fleetbeat enroll`, refused when others can read them."""

from pathlib import Path

import pytest

from fleetbeat import main
from infra.enroll.run import file_name
from schemas.documents import DocumentError
from schemas.secret_files import SecretFileError
from schemas.signatures import node_key
from schemas.signing_files import read_node_key
from streams.core.signing import Keyring, Master
from streams.options import OptionError, WorkerOptions, check_options
from streams.signing_keys import load_keyring

MASTER = "0123456789abcdef" * 4
NODES = ("web-1", "日本/1", "..", "web-1")


@pytest.fixture
def master(tmp_path: Path) -> Path:
    path = tmp_path / "master"
    path.write_text(MASTER + "\n")
    path.chmod(0o600)
    return path


def enroll(*arguments: object) -> int:
    return main(["enroll", *map(str, arguments)])


def test_each_node_gets_a_file_of_its_own_that_only_its_owner_can_read(master: Path, tmp_path: Path) -> None:
    more = tmp_path / "fleet.txt"
    more.write_text("# one line each\n web-2 \n\nweb-1\n")
    out = tmp_path / "keys"
    assert enroll(*NODES, "--nodes-file", more, "--master-file", master, "--key-id", 7, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {file_name(node) for node in (*NODES, "web-2")}
    assert {path.stat().st_mode & 0o777 for path in (out, *out.iterdir())} == {0o700, 0o600}
    for node in (*NODES, "web-2"):
        found = read_node_key(out / file_name(node), "key_file", node)
        assert (found.node, found.key_id, found.key) == (node, 7, node_key(MASTER.encode(), node))


def test_names_of_files_are_names_and_no_two_nodes_share_one() -> None:
    nodes = ("web-1", "Web-1", "a/b", "a_b", "..", ".", "", "é", "x" * 200, "x" * 201)
    names = {file_name(node) for node in nodes}
    assert len(names) == len(nodes)
    assert all("/" not in name and not name.startswith("..") and len(name) < 128 for name in names)


def test_a_new_master_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "master"
    assert enroll("--new-master", "--master-file", path) == 0
    secret = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret.strip() not in capsys.readouterr().out
    assert enroll("--new-master", "--master-file", path) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == secret
    assert enroll("n", "--master-file", path, "--out", tmp_path / "keys") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["n"], "--out: missing; expected a folder for the keys of 1 nodes"),
        ([], "no nodes; expected their ids, --nodes-file, or --new-master"),
        (["n", "--out", "k", "--key-id", "-1"], "--key-id: value -1; expected 0 to 4294967295"),
        (["x" * 256, "--out", "k"], "256 bytes; expected 1 to 255 of printable text"),
        (["n", "--out", "k", "--nodes-file", "nowhere"], "--nodes-file nowhere: no such file or directory"),
    ],
)
def test_what_cannot_be_meant_is_told(
    master: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert enroll(*arguments, "--master-file", master) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (MASTER, 0o644, "others can get at it"),
        (MASTER[:31], 0o600, "31 bytes; expected at least 32"),
        ("", 0o600, "empty"),
    ],
)
def test_a_master_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, mode: int, said: str
) -> None:
    path = tmp_path / "master"
    path.write_text(content)
    path.chmod(mode)
    assert enroll("n", "--master-file", path, "--out", tmp_path / "keys") == 2
    assert said in capsys.readouterr().err
    (tmp_path / "signing.yaml").write_text("keys: [{id: 1, file: master}]")
    with pytest.raises(DocumentError) as refused:
        load_keyring(tmp_path / "signing.yaml")
    assert said in str(refused.value)
    assert content == "" or content not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"node": "n", "key_id": 1, "key": "zz"}', '{"node": "n", "key_id": 1, "key": "00"}']
)
def test_a_file_that_is_no_nodes_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SecretFileError, match="expected"):
        read_node_key(path, "node.key_file", "n")


def test_the_key_of_another_node_is_refused_where_it_would_sign_for_nothing(master: Path, tmp_path: Path) -> None:
    assert enroll("other", "--master-file", master, "--out", tmp_path) == 0
    with pytest.raises(SecretFileError, match="the key of 'other'; expected that of this node, 'n'"):
        read_node_key(tmp_path / "other.key", "node.key_file", "n")


def test_a_keyring_has_masters_their_ends_and_who_is_revoked(master: Path) -> None:
    path = master.parent / "signing.yaml"
    path.write_text(
        "keys:\n  - {id: 1, file: master, until: 2026-01-01T00:00:00Z}\n  - {id: 2, file: master}\n"
        "revoked: [{node: a}, {node: b, since: 2026-01-01T00:00:01+00:00}, {node: a, since: 2026-01-01T00:00:01Z}]\n"
    )
    begin_ms = 1_767_225_600_000
    secret = MASTER.encode()
    assert load_keyring(path) == Keyring(
        {1: Master(secret, begin_ms), 2: Master(secret)}, {"a": 0, "b": begin_ms + 1_000}
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: []", "keys: value []: expected"),
        ("keys: [{id: 1, file: master}, {id: 1, file: master}]", "keys.1.id: value 1: expected each id once"),
        ("keys: [{id: 1, file: gone}]", "no such file or directory"),
        ("keys: [{id: -1, file: master}]", "keys.0.id: value -1: expected"),
        ("keys: [{id: 1, file: master, until: 2026-01-01T00:00:00}]", "keys.0.until: value"),
        ("keys: [{id: 1, file: master}]\nrevoke: []", "revoke: unknown key"),
    ],
)
def test_a_keyring_that_cannot_be_meant_is_told_with_its_place(master: Path, text: str, said: str) -> None:
    path = master.parent / "signing.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError) as refused:
        load_keyring(path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "keys", "said"),
    [
        ("on", None, "--signatures: value 'on'; expected one of off, check, require"),
        ("require", None, "--signatures require and --signing-keys None; expected check or require with a file"),
        ("off", Path("k"), "--signatures off and --signing-keys k; expected"),
    ],
)
def test_a_worker_that_could_not_check_does_not_start(mode: str, keys: Path | None, said: str) -> None:
    with pytest.raises(OptionError) as refused:
        check_options(WorkerOptions("b:1", Path("o"), signatures=mode, signing_keys=keys), ())
    assert str(refused.value).startswith(said)
