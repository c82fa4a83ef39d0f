"""Files of secrets: what is in them, who else may read them, and that no message shows them."""

import os
from pathlib import Path

import pytest

from schemas.secret_files import SecretFileError, read_secret

HIDDEN = "hunter2-5f1c"


def secret(folder: Path, text: str | bytes = f"{HIDDEN}\n", mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SecretFileError) as caught:
        read_secret(path, "sasl.password_file")
    assert HIDDEN not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("text", [HIDDEN, f"{HIDDEN}\n", f"{HIDDEN}\r\n"])
def test_the_line_s_end_is_no_part_of_a_secret(tmp_path: Path, text: str) -> None:
    assert read_secret(secret(tmp_path, text), "sasl.password_file") == HIDDEN


def test_blanks_are(tmp_path: Path) -> None:
    assert read_secret(secret(tmp_path, " two words \n"), "sasl.password_file") == " two words "


@pytest.mark.parametrize(
    ("mode", "whom"),
    [(0o604, "others"), (0o666, "others"), (0o601, "others"), (0o660, "its group"), (0o620, "its group")],
)
def test_what_others_can_get_at_is_refused_with_the_way_to_mend_it(tmp_path: Path, mode: int, whom: str) -> None:
    path = secret(tmp_path, mode=mode)
    assert refusal(path) == (
        f"sasl.password_file {path}: mode {mode:04o}: {whom} can get at it; expected 0600 "
        f"(chmod 600 {path}), or 0640 when root owns it"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_group_may_read_what_root_owns_and_nothing_else(tmp_path: Path) -> None:
    path = secret(tmp_path, mode=0o640)
    assert read_secret(path, "sasl.password_file") == HIDDEN
    os.chown(path, 12_345, -1)
    assert "its group can get at it" in refusal(path)


def test_the_mode_of_a_link_s_target_counts(tmp_path: Path) -> None:
    target = secret(tmp_path, mode=0o644)
    link = tmp_path / "link"
    link.symlink_to(target)
    assert f"(chmod 600 {target})" in refusal(link)
    target.chmod(0o400)
    assert read_secret(link, "sasl.password_file") == HIDDEN


def test_what_holds_no_secret_is_refused(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refusal(nowhere) == f"sasl.password_file {nowhere}: cannot be read: no such file or directory"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert refusal(pipe).endswith("expected a regular file")
    assert refusal(tmp_path).endswith(("expected a regular file", "is a directory"))
    for text, said in (
        ("", "empty; expected a secret in it"),
        ("\n\n", "empty; expected a secret in it"),
        (f"{HIDDEN}\n{HIDDEN}\n", "more than one line; expected the secret alone"),
        (HIDDEN.encode() + b"\xff", "13 bytes that are not UTF-8; expected text"),
        (HIDDEN * 10_000, "more than 65536 bytes; expected a secret"),
    ):
        assert refusal(secret(tmp_path, text)).endswith(said)
