"""The keys `tls` and `sasl`: what they come to, what is refused, and that nothing shows a secret."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.config import load_agent
from fleetbeat_commands import run
from schemas.documents import DocumentError, load_document
from schemas.kafka import SecuredBrokers, client_settings
from schemas.kafka.option import LOCAL_KAFKA, BrokersError, reach
from schemas.kafka.settings import SECOND_YES, KafkaConfigFile
from schemas.secret_files import SecretFileError
from streams.engine.app import EngineSettings, create_app
from streams.settings.fields import KafkaFile

HIDDEN = "hunter2-5f1c"


def written(folder: Path, text: str) -> Path:
    password = folder / "password"
    password.write_text(f"{HIDDEN}\n")
    password.chmod(0o600)
    path = folder / "kafka.yaml"
    path.write_text(text.replace("PASSWORD", str(password)))
    return path


def problems(folder: Path, text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        load_document(written(folder, text), KafkaConfigFile)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "protocol", "principal"),
    [
        ("tls: {}", "SSL", "User:ANONYMOUS"),
        ("tls: {}\nsasl: {user: worker, password_file: PASSWORD}", "SASL_SSL", "User:worker"),
        (
            f"sasl: {{user: worker, password_file: PASSWORD, without_tls: {SECOND_YES}}}",
            "SASL_PLAINTEXT",
            "User:worker",
        ),
    ],
)
def test_what_is_given_makes_the_protocol(tmp_path: Path, text: str, protocol: str, principal: str) -> None:
    brokers = reach("k:9093", written(tmp_path, text))
    assert isinstance(brokers, SecuredBrokers)
    assert (brokers.security.protocol, brokers.security.principal) == (protocol, principal)
    assert client_settings(brokers)["security_protocol"] == protocol
    assert str(brokers) == "k:9093"


def test_without_a_file_connections_are_plain_and_addresses_come_from_the_nearest_place(tmp_path: Path) -> None:
    assert client_settings(reach(None, None)) == {"bootstrap_servers": LOCAL_KAFKA}
    file = written(tmp_path, "brokers: k1:9093,k2:9093\ntls: {}")
    assert str(reach(None, file)) == "k1:9093,k2:9093"
    assert str(reach("k3:9093", file)) == "k3:9093"
    assert reach(None, written(tmp_path, "brokers: k4:9092")) == "k4:9092"


@pytest.mark.parametrize(
    "typed", ["", ",", "k", "k:", "a:b:9092", "k:0", "k:65536", "http://k:9092", "::1:9092", "[k]:1"]
)
@pytest.mark.parametrize("read", [reach, KafkaFile(brokers="k:9092").reach], ids=["without a file", "beside a file"])
def test_addresses_that_cannot_be_meant_are_refused_and_nobody_else_is_asked(
    read: Callable[..., Any], typed: str
) -> None:
    with pytest.raises(BrokersError) as refused:
        read(typed, None)
    assert str(refused.value) == f"--brokers {typed!r}: expected HOST:PORT, or several with commas between"


def test_addresses_of_every_form_are_taken() -> None:
    assert reach("k1:9092, 10.0.0.7:9092,[::1]:9092", None) == "k1:9092, 10.0.0.7:9092,[::1]:9092"


def test_bad_files_are_refused_with_the_place_and_what_was_expected(tmp_path: Path) -> None:
    needs = f'expected tls, or sasl.without_tls: "{SECOND_YES}"'
    cases = {
        "sasl: {user: w, password_file: p}": f"kafka.yaml:1:1: document: value {{'sasl': {{'user': 'w', "
        f"'password_file': 'p'}}}}: sasl without tls; {needs}",
        "sasl: {user: w, password_file: p, without_tls: yes please}": "kafka.yaml:1:1: document: value {'sasl': "
        "{'user': 'w', 'password_file': 'p', 'without_tls': 'yes please'}}: sasl without tls; " + needs,
        f"sasl: {{mechanism: PLAIN, user: w, password_file: p, without_tls: {SECOND_YES}}}": "kafka.yaml:1:1: "
        "document: value {'sasl': {'mechanism': 'PLAIN', 'user': 'w', 'password_file': 'p', 'without_t...: "
        "sasl PLAIN without tls sends the password as it is; expected tls",
        "tls:": "kafka.yaml:1:1: tls: value None: nothing stands there; expected keys, or {} for TLS with the system's "
        "authorities",
        "tls: {cert_file: c}": "kafka.yaml:1:1: tls: value {'cert_file': 'c'}: cert_file without key_file; expected "
        "both or none",
        "tls: {verify: false}": "kafka.yaml:1:7: tls.verify: unknown key (value False)",
        "tls: {}\nsasl: {user: w, mechanism: MD5, password_file: p}": "kafka.yaml:2:17: sasl.mechanism: value 'MD5': "
        "expected 'SCRAM-SHA-512', 'SCRAM-SHA-256' or 'PLAIN'",
        "brokers: k1": "kafka.yaml:1:1: brokers: value 'k1': 'k1'; expected HOST:PORT, several separated by commas",
    }
    for text, said in cases.items():
        assert problems(tmp_path, text) == said, text


def test_no_message_shows_a_password_that_was_written_in_the_wrong_place(tmp_path: Path) -> None:
    said = problems(tmp_path, f"tls: {{}}\nsasl: {{user: w, password: {HIDDEN}}}")
    assert HIDDEN not in said
    assert "kafka.yaml:2:17: sasl.password: unknown key (value (not shown))" in said
    said = problems(tmp_path, f"sasl: {{user: w, password_file: p}}\nsecrets: {{token: {HIDDEN}}}")
    assert HIDDEN not in said


def test_nothing_that_is_printed_or_logged_shows_the_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for mechanism in ("SCRAM-SHA-512", "PLAIN"):
        text = f"tls: {{}}\nsasl: {{mechanism: {mechanism}, user: w, password_file: PASSWORD}}"
        brokers = reach("k:9093", written(tmp_path, text))
        app = create_app(EngineSettings(brokers, tmp_path, 1), frozenset())
        shown = f"{brokers!r} {brokers} {app.conf.broker_credentials!r} {app.conf!r}"
        if mechanism != "PLAIN":  # the clients' own, which nothing prints
            shown += repr(client_settings(brokers))
        assert HIDDEN not in shown
        assert "w" in shown
    assert HIDDEN not in caplog.text


def test_a_password_file_is_looked_at_before_anything_starts_and_at_each_login(tmp_path: Path) -> None:
    file = written(tmp_path, "tls: {}\nsasl: {user: w, password_file: PASSWORD}")
    password = client_settings(reach("k:9093", file))["sasl_plain_password"]
    assert password.encode("utf-8") == HIDDEN.encode()
    (tmp_path / "password").write_text("another\n")
    assert password.encode("utf-8") == b"another"
    (tmp_path / "password").chmod(0o644)
    with pytest.raises(SecretFileError, match="mode 0644: others can get at it"):
        password.encode("utf-8")
    with pytest.raises(SecretFileError, match="mode 0644: others can get at it"):
        reach("k:9093", file)


def test_faust_is_told_the_same_as_aiokafka(tmp_path: Path) -> None:
    brokers = reach("k1:9093,k2:9093", written(tmp_path, "tls: {}\nsasl: {user: w, password_file: PASSWORD}"))
    app = create_app(EngineSettings(brokers, tmp_path, 1), frozenset())
    producer: Any = app.producer
    told, expected = {**producer._settings_auth()}, {**client_settings(brokers)}
    assert expected.pop("bootstrap_servers") == "k1:9093,k2:9093"
    assert told == expected
    assert [str(url) for url in app.conf.broker] == ["kafka://k1:9093", "kafka://k2:9093"]


def test_the_agent_has_the_same_keys_in_its_own_file(tmp_path: Path) -> None:
    text = "kafka:\n  brokers: k:9093\n  tls: {}\n  sasl: {user: collector, password_file: PASSWORD}\n"
    config = load_agent(written(tmp_path, text))
    brokers = config.kafka.at(config.kafka.brokers)
    assert isinstance(brokers, SecuredBrokers)
    assert brokers.security.principal == "User:collector"
    with pytest.raises(DocumentError, match=r":1:1: kafka: value .*: sasl without tls; expected tls"):
        load_agent(written(tmp_path, "kafka: {sasl: {user: collector, password_file: p}}"))


def test_check_says_what_a_file_comes_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "tls: {}\nsasl: {user: w, password_file: not-on-this-machine}")
    assert run(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good, SASL_SSL as User:w\n"


def test_every_command_that_talks_to_kafka_takes_the_file_and_the_variable(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fleetbeat

    nowhere = tmp_path / "nowhere.yaml"
    said = f"fleetbeat: {nowhere}: no such file; expected a YAML file\n"
    commands = ["worker --objectives x", "simulate", "slo", "archive", "topics apply", "topics check", "topics acl"]
    commands += ["dlq list", "dlq show a/0/1", "dlq replay", "state show", "state reset", "state rebuild", "reconcile"]
    for command in commands:
        assert fleetbeat.main([*command.split(), "--kafka-config", str(nowhere)]) == 2, command
        assert capfd.readouterr().err == said, command
    monkeypatch.setenv("FLEETBEAT_KAFKA_CONFIG", str(nowhere))
    assert fleetbeat.main(["slo"]) == 2
    assert capfd.readouterr().err == said
