"""Traces: each run has an id of its own, in its log lines, and in its record when it is worth storing."""

import asyncio
import io
import json
import logging
import random
import re
from collections.abc import Sequence

import pytest

from agents.logs import JsonLines
from agents.probes.base import Down, Failure, Outcome, Phase, Timeout, Up
from agents.probes.threads import SideThread
from agents.probes.trace import Trace, current_trace, traced
from agents.run import Prober
from agents.tracing import Keep, TraceFile, Tracer
from tests.unit.agent_fakes import Answering, Crashing, ManualClock, spec

UP, DOWN, LATE = Up(1), Down("status", "500", 1, failure=Failure.VALIDATION), Timeout(1, Phase.CONNECT)


def kept(settings: TraceFile, outcomes: Sequence[Outcome]) -> int:
    tracer = Tracer(settings, random.Random(7))
    count = 0
    for outcome in outcomes:
        with traced(tracer.begin()):
            count += tracer.kept(outcome) is not None
    return count


@pytest.mark.parametrize(
    ("keep", "ratio", "ups", "others"),
    [("failures", 0.0, 0, 2_000), ("always", 0.0, 2_000, 2_000), ("never", 1.0, 0, 0), ("failures", 1.0, 2_000, 2_000)],
)
def test_what_is_stored_is_what_the_config_says(keep: Keep, ratio: float, ups: int, others: int) -> None:
    settings = TraceFile(keep=keep, ratio=ratio)
    assert kept(settings, [UP] * 2_000) == ups
    assert kept(settings, [DOWN, LATE] * 1_000) == others


def test_by_default_one_result_in_a_hundred_and_every_failure_is_stored() -> None:
    assert 400 <= kept(TraceFile(), [UP] * 50_000) <= 600
    assert kept(TraceFile(), [DOWN, LATE] * 50) == 100


def test_a_trace_is_one_of_w3c_and_says_whether_it_is_sampled() -> None:
    tracer = Tracer(TraceFile(keep="failures", ratio=0.5), random.Random(1))
    traces = [tracer.begin() for _ in range(200)]
    assert len({trace.trace_id for trace in traces}) == 200
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", trace.traceparent) for trace in traces)
    assert {trace.traceparent[-1] for trace in traces} == {"0", "1"}
    assert all(trace.sampled == trace.traceparent.endswith("1") for trace in traces)


def test_the_first_span_has_the_second_half_of_the_id_also_where_chance_drew_zeros() -> None:
    assert Trace("1" * 16 + "2" * 16, sampled=False).traceparent == f"00-{'1' * 16}{'2' * 16}-{'2' * 16}-00"

    class Zeros(random.Random):
        def getrandbits(self, k: int, /) -> int:  # noqa: ARG002 - as random has it
            return 0

    assert Tracer(TraceFile(), Zeros()).begin().traceparent == f"00-{1:032x}-{1:016x}-01"


def test_two_agents_draw_different_ids() -> None:
    assert Tracer(TraceFile()).begin() != Tracer(TraceFile()).begin()


def test_a_run_its_report_its_threads_and_its_log_lines_have_one_id_and_the_next_run_another() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("agents")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    seen: list[tuple[str, Trace | None]] = []

    class Looking:
        async def run(self, deadline_s: float) -> Outcome:  # noqa: ARG002 - part of the protocol
            seen.append(("run", current_trace()))
            seen.append(("thread", await SideThread(current_trace).call()))
            return DOWN if len(seen) < 4 else UP

    async def report(*_: object) -> None:
        seen.append(("report", current_trace()))

    async def main() -> None:
        clock = ManualClock()
        prober = Prober([spec("looking", Looking())], 1, 10, report, clock)
        running = asyncio.create_task(prober.run("node-1"))
        for count in (3, 6):
            await clock.advance(10)
            while len(seen) < count:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)  # a real thread takes real time
        running.cancel()
        assert prober.failures.validation == {("fake", "status"): 1}

    try:
        asyncio.run(main())
    finally:
        log.removeHandler(handler)
    assert [what for what, _ in seen] == ["run", "thread", "report"] * 2
    ids = [trace.trace_id if trace else "" for _, trace in seen]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5]
    assert current_trace() is None
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["trace_id"], first["reason"]) == ("a probe is down", ids[0], "status")
    assert (first["failure"], first["detail"]) == ("validation", "500")
    assert (second["event"], second["trace_id"]) == ("a probe is up again", ids[3])


def test_validators_are_counted_apart_from_transport_and_the_reasons_of_a_plugin_are_bounded() -> None:
    async def unheard(*_: object) -> None:
        pass

    async def main() -> Prober:
        outcomes: list[Outcome] = [UP, DOWN, LATE, Down("refused", "", 1)]
        probes = [spec(f"p{place}", Answering(outcome)) for place, outcome in enumerate(outcomes)]
        probes += [spec(f"odd-{n}", Answering(Down(f"odd-{n}", "", 1))) for n in range(300)]
        prober = Prober([*probes, spec("crash", Crashing())], 4, 1_000, unheard, ManualClock())
        await prober.run_once()
        return prober

    failures = asyncio.run(main()).failures
    assert failures.validation == {("fake", "status"): 1}
    assert failures.transport["fake", "timeout"] == failures.transport["fake", "refused"] == 1
    assert len(failures.transport) == 257
    assert failures.transport.total() == 303
