"""The probe `file-age` tells a new file from an old, an empty and a missing one."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from fleetbeat_probe_file_age import KIND

from agents.probes.base import Down


@pytest.mark.parametrize(
    ("content", "age_s", "reason"),
    [
        pytest.param("backup", 60, None, id="a new file is up"),
        pytest.param("backup", 7_200, "too-old", id="an old one is down"),
        pytest.param("", 60, "too-small", id="an empty one is down"),
        pytest.param(None, 0, "no-file", id="a missing one is down"),
    ],
)
def test_a_file(content: str | None, age_s: int, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    if content is not None:
        path.write_text(content)
        os.utime(path, times=(0, time.time() - age_s))
    config = KIND.config.model_validate({"path": path, "max_age_s": 3_600})
    outcome = asyncio.run(KIND.build(config).run(deadline_s=5.0))
    assert (outcome.reason if isinstance(outcome, Down) else None) == reason
