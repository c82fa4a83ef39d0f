"""Programs of the machine that a test needs: where one is missing the test is skipped, in CI it fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TIMEOUT_S = 60


def need(*programs: str) -> None:
    """Skips the test that lacks one of them; .ci/run installs them all, so there nothing is skipped silently."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    message = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def run(
    *command: str | Path, folder: Path | None = None, timeout_s: int = TIMEOUT_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What a program said, whatever its exit status; `environment` is added to the test's own."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def run_with_input(text: str, *command: str) -> subprocess.CompletedProcess[str]:
    """The same for a program that reads what it is about."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
