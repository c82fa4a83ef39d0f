"""Options of `fleetbeat worker` that cannot be meant are refused before anything is started."""

from pathlib import Path

import pytest

from streams.app import run_worker
from streams.options import OptionError, WorkerOptions
from tests.integration.worker_process import Promise, write_objectives


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"advertise": "host"}, "--advertise: value 'host': expected HOST:PORT, such as 10.0.0.7:8080"),
        ({"advertise": "http://host:8080"}, "--advertise: value 'http://host:8080': expected HOST:PORT"),
        ({"stall_after_s": 0.0}, "--stall-after: value 0.0; expected seconds, more than 0"),
        ({"stall_after_s": float("nan")}, "--stall-after: value nan; expected seconds"),
        ({"series_max": 0}, "--series-max: value 0; expected 1 to 500000"),
        ({"series_max": 500_001}, "--series-max: value 500001; expected 1 to 500000"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(tmp_path: Path, option: dict[str, object], says: str) -> None:
    objectives = write_objectives(tmp_path / "slos.yaml", [Promise("all")])
    state = tmp_path / "state"
    with pytest.raises(OptionError) as refused:
        run_worker(WorkerOptions("127.0.0.1:9", objectives, "127.0.0.1:0", state, **option))  # type: ignore[arg-type]
    assert str(refused.value).startswith(says)
    assert not state.exists()
