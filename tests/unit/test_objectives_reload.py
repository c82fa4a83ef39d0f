"""The objectives file of a running worker: what a change, a mistake and a request to reload come to."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streams import metrics
from streams.config import load_objectives
from streams.processors import objectives_file
from streams.processors.objectives_file import Failed, ObjectivesFile, Refused, load_file
from streams.processors.versions import Versions
from streams.views.reload import reload_routes
from tests.unit.objectives_topic import Topic, played, worker

SLO = """apiVersion: openslo/v1
kind: SLO
metadata: {name: pay}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: fleetbeat, spec: {source: probe-results, latency_us_le: LIMIT}}},
    total: {metricSource: {type: fleetbeat, spec: {source: probe-results}}}}}}
  timeWindow: [{duration: 7d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
"""


def write(path: Path, limit: int = 0, text: str = SLO) -> None:
    """As editors do: another file takes its place."""
    new = path.with_suffix(".new")
    new.write_text(text.replace("LIMIT", str(limit)))
    new.replace(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def slos(tmp_path: Path) -> Path:
    path = tmp_path / "slos.yaml"
    write(path, 1_000)
    return path


async def started(topic: Topic, slos: Path) -> tuple[Versions, ObjectivesFile]:
    versions = worker(topic)
    loaded = load_file(slos, load_objectives)
    await versions.offer(loaded.objectives, loaded.written_ms)
    return versions, ObjectivesFile(loaded, versions, load_objectives)


def test_a_bad_file_leaves_the_objectives_and_names_the_place(slos: Path) -> None:
    async def script(topic: Topic) -> None:
        versions, file = await started(topic, slos)
        before = versions.timeline
        write(slos, -1)
        refused = await file.reload()
        assert isinstance(refused, Refused)
        (problem,) = refused.problems
        assert problem.startswith(f"{slos}:7:")
        assert "latency_us_le: value -1: expected" in problem
        assert versions.timeline is before
        assert metrics.OBJECTIVES_FILE_USED._value.get() == 0
        remove(slos)
        assert isinstance(await file.reload(), Refused)
        assert versions.timeline is before
        assert len(topic.records) == 1

    played(script)


def test_a_file_is_looked_at_when_it_changes_and_again_when_kafka_was_away(
    slos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives_file, "LOOK_EVERY_S", 0.005)

    async def script(topic: Topic) -> None:
        versions, file = await started(topic, slos)
        watching = asyncio.create_task(file.watch())
        topic.broken = True
        write(slos, 2_000)
        assert isinstance(await file.reload(), Failed)
        await asyncio.sleep(0.05)
        topic.broken = False
        async with asyncio.timeout(5):
            while len(versions.timeline.eras) < 2:  # noqa: ASYNC110 - the file is watched by looking
                await asyncio.sleep(0.01)
        assert versions.timeline.newest == load_objectives(slos)
        await asyncio.sleep(0.05)
        assert len(topic.records) == 2, "once is enough"
        watching.cancel()

    played(script)


def test_a_reload_that_is_asked_for_says_what_came_of_it(slos: Path) -> None:
    async def script(topic: Topic) -> None:
        _, file = await started(topic, slos)
        application = web.Application()
        application.add_routes(reload_routes(file))
        async with TestClient(TestServer(application)) as client:

            async def reload() -> tuple[int, dict[str, object]]:
                answer = await client.post("/-/reload")
                return answer.status, json.loads(await answer.read())

            assert await reload() == (200, {"announced": False, "objectives": 1, "start_ms": 0})
            write(slos, 3000)
            assert await reload() == (200, {"announced": True, "objectives": 1, "start_ms": 1_030_000})
            write(slos, text="kind: Nothing")
            status, said = await reload()
            assert (status, said["error"]) == (422, "the objectives file is refused, those of before stay")
            kinds = "SLO, SLI, Service, AlertPolicy or AlertCondition"
            assert said["problems"] == [f"{slos}:1:1: kind: value 'Nothing': not supported; expected {kinds}"]
            write(slos, 4000)
            topic.broken = True
            status, said = await reload()
            assert (status, str(said["error"]).startswith("Kafka did not take the announcement: ")) == (503, True)
            assert (await client.get("/-/reload")).status == 405

    played(script)
