"""`fleetbeat simulate` before it meets Kafka: options, the first moment, what it says."""

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from agents.simulate import run
from agents.simulate.config import load_script
from agents.simulate.ledger import read_ledger
from agents.simulate.options import SimulateOptions, check, first_moment_ms, plan_of
from agents.simulate.progress import Figures
from agents.simulate.rows import Chunk
from agents.simulate.run import run_simulate

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nodes": 0}, "--nodes 0: expected 1 to 4,000,000"),
        ({"interval_s": 0.0}, "--interval 0.0: expected 0.1 to 3,600"),
        ({"duration_s": -1.0}, "--duration -1.0: expected 0.001 to 2,592,000"),
        ({"start_ms": 10**20}, "--start-ms 100000000000000000000: expected 0 to 253,402,300,799,999"),
        ({"seed": -1}, "--seed -1: expected 0 to"),
        ({"rate": -5.0, "services": 0}, "--services 0: expected 1 to 10,000\n--rate -5.0: expected 0 to"),
        ({"requests_per_s": -1.0}, "--requests -1.0: expected 0 to 1,000,000"),
        ({"unpaced": True}, "--unpaced: expected --events or --duration beside it"),
    ],
)
def test_options_out_of_range_are_refused_by_name(changes: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        check(SimulateOptions("nowhere:1", **changes))  # type: ignore[arg-type]
    assert problem in str(refused.value)


def test_a_bad_option_and_a_bad_script_end_with_2_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_simulate(SimulateOptions("nowhere:1", nodes=0)) == 2
    assert "--nodes 0" in capsys.readouterr().err
    assert run_simulate(SimulateOptions("nowhere:1", script=tmp_path / "gone.yaml")) == 2
    assert "gone.yaml: no such file" in capsys.readouterr().err


def first(**changes: object) -> int:
    options = SimulateOptions("nowhere:1", **changes)  # type: ignore[arg-type]
    return first_moment_ms(options, plan_of(options, load_script(None)), NOW_MS)


def test_a_paced_run_starts_now() -> None:
    assert first(duration_s=3_600.0) == NOW_MS


def test_an_unpaced_run_starts_as_far_back_as_it_is_long() -> None:
    assert first(unpaced=True, duration_s=60.0) == NOW_MS - 60_000
    # 1,000 nodes with a heartbeat every 10 s and 900 results a second are 1,000 events a second.
    assert first(unpaced=True, events=5_000, rate=900.0) == NOW_MS - 5_000
    assert first(unpaced=True, events=5_000, rate=900.0, duration_s=2.0) == NOW_MS - 2_000


def test_no_run_starts_before_what_the_contract_takes() -> None:
    assert first(start_ms=NOW_MS - 34 * DAY_MS) == NOW_MS - 34 * DAY_MS
    with pytest.raises(ValueError, match=r"34\.5 days old; expected at most 34"):
        first(start_ms=NOW_MS - 34 * DAY_MS - DAY_MS // 2)


def test_the_progress_line_says_all_that_matters() -> None:
    figures = Figures(
        heartbeats=10, results=2_000, in_flight=7, held=3, nodes_up=8, nodes_cut_off=1, nodes=10, behind_s=0.25
    )
    assert figures.line(1_234.5) == (
        "1,234 events/s  sent 2,010  in flight 7  held 3  nodes up 8, cut off 1, down 2  behind 0.2 s"
    )


class MemoryKafka:
    """Stands where the Emitter stands; acknowledges chunks late and refuses the one of number `refuse`."""

    folder: Path = Path()
    refuse: int | None = None

    def __init__(self, *_: object, counting: bool) -> None:
        self.counting = counting
        self.events = 0
        self.chunks = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, chunk: Chunk) -> list[asyncio.Future[Any]]:
        self.events += chunk.events
        ledger = read_ledger(self.folder)
        written = len(ledger.heartbeats) + len(ledger.results) + len(ledger.counts)
        assert written == self.events, "sent before it was in the ledger"
        loop = asyncio.get_running_loop()
        ack: asyncio.Future[Any] = loop.create_future()
        outcome = (ack.set_exception, MessageSizeTooLargeError()) if self.chunks == self.refuse else (ack.set_result, 1)
        loop.call_later(0.01, *outcome)
        self.chunks += 1
        return [ack]


@pytest.fixture
def memory_kafka(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[MemoryKafka]:
    monkeypatch.setattr(run, "Emitter", MemoryKafka)
    monkeypatch.setattr(MemoryKafka, "folder", tmp_path / "sent")
    return MemoryKafka


def unpaced(folder: Path) -> SimulateOptions:
    return SimulateOptions(
        "memory:1",
        nodes=10,
        unpaced=True,
        rate=10_000.0,
        requests_per_s=200.0,
        events=30_000,
        seed=3,
        ledger=folder / "sent",
    )


@pytest.mark.usefixtures("memory_kafka")
def test_every_event_is_in_the_ledger_before_it_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_simulate(unpaced(tmp_path)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["events"] == summary["heartbeats"] + summary["results"] + summary["counts"] == 30_000
    assert summary["seed"] == 3
    ledger = read_ledger(tmp_path / "sent")
    assert ledger.finished
    assert ledger.results_acknowledged.all()
    assert len(ledger.results) == summary["results"]
    assert (len(ledger.counts), len(ledger.requests)) == (summary["counts"], summary["requests"])
    assert 0 < summary["counts"] < summary["requests"]


def test_a_refused_batch_ends_the_run_with_1_and_without_a_finished_ledger(
    memory_kafka: type[MemoryKafka],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(memory_kafka, "refuse", 1)
    assert run_simulate(unpaced(tmp_path)) == 1
    said = capsys.readouterr()
    assert "memory:1 did not take a batch: MessageSizeTooLargeError" in said.err
    assert said.out == ""
    ledger = read_ledger(tmp_path / "sent")
    assert not ledger.finished
    assert 0 < ledger.results_acknowledged.sum() < len(ledger.results)
