"""Several workers answer as one, over real HTTP: the same as one with all tables would, or why not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streams import metrics
from streams.core.liveness.zones import OUTAGE, ZoneState
from tests.unit.liveness_world import START_MS, Beat
from tests.unit.view_workers import PARTITIONS, SLOS, Group, Worker, home

ALL = range(PARTITIONS)
# One node is in a partition that is not its home: its client places keys in its own way.
STRAY = next(f"stray-{n}" for n in range(99) if home(f"stray-{n}") == 0)
NAMES = [f"node-{n:03}" for n in range(40)] + ["a/b ?#%2F", "ü", STRAY]
BEATS: dict[int, list[Beat]] = {partition: [] for partition in ALL}
for number, name in enumerate(NAMES):
    BEATS[3 if name == STRAY else home(name)] += [
        Beat(name, START_MS + 50_000 * (number % 2), seq=seq, heartbeat_seq=seq, zone="xyz"[number % 3])
        for seq in range(1 + number % 4)
    ]
QUIET = (0, 2)
PATHS = [
    *(
        "/api/v1/slos",
        "/api/v1/fleet",
        "/api/v1/nodes",
        "/api/v1/nodes?limit=7",
        "/api/v1/nodes?limit=7&after=node-019",
    ),
    *(
        "/api/v1/nodes?state=UP&zone=x",
        "/api/v1/nodes?zone=nowhere",
        "/api/v1/nodes?limit=43",
        "/api/v1/nodes?limit=44",
    ),
    *(f"/api/v1/slos/{name}" for name in SLOS),
    *(f"/api/v1/slos/{name}/slices?from_ms=1000&to_ms=61000" for name in SLOS),
    *(f"/api/v1/nodes/{name}" for name in ("node-000", "node-017", "a%2Fb%20%3F%23%252F", "%C3%BC", STRAY, "nobody")),
    *("/api/v1/slos/unknown", "/api/v1/nodes?limit=x", f"/api/v1/slos/{SLOS[0]}/slices?from_ms=1"),
]

Scene = Callable[[Group], Awaitable[None]]


def play(scene: Scene, *workers: Worker) -> None:
    async def run() -> None:
        async with Group(*workers) as group:
            await scene(group)

    asyncio.run(run())


def pair() -> tuple[Worker, Worker]:
    return Worker((0, 2), BEATS), Worker((1, 3), BEATS)


def outcome(name: str) -> float:
    return float(metrics.FORWARDS.labels(name)._value.get())


def test_any_worker_answers_as_one_with_everything_would() -> None:
    answers: list[dict[str, Any]] = []

    async def ask(group: Group) -> None:
        answers.extend([{path: await group.get(worker, path) for path in PATHS} for worker in group.workers])

    play(ask, Worker(ALL, BEATS))
    play(ask, *pair())
    play(ask, Worker((0,), BEATS), Worker((1, 2), BEATS), Worker((3,), BEATS), Worker((), BEATS))
    alone, *others = answers
    assert len(others) == 6
    statuses = [status for status, _ in alone.values()]
    assert (statuses.count(404), statuses.count(400)) == (2, 2)
    assert statuses.count(200) == len(PATHS) - 4
    for path in PATHS:
        wanted = _comparable(alone[path])
        assert [_comparable(answer[path]) for answer in others] == [wanted] * len(others), path


def _comparable(answer: tuple[int, Any]) -> tuple[int, Any]:
    """`offsets` of one node are those of its partition; of one that nobody knows, of whoever was asked first."""
    status, body = answer
    if status == 404:
        return status, body["error"]
    return answer


def test_pages_go_through_all_nodes_in_order() -> None:
    async def scene(group: Group) -> None:
        for worker in group.workers:
            found: list[str] = []
            after = ""
            while True:
                status, page = await group.get(worker, f"/api/v1/nodes?limit=4{after}")
                assert status == 200
                found += [node["node_id"] for node in page["nodes"]]
                if page["next"] is None:
                    break
                after = f"&after={page['next'].replace('%', '%25').replace('#', '%23').replace(' ', '+')}"
            assert found == sorted(NAMES)

    play(scene, *pair())


def test_a_question_is_passed_on_once_and_never_comes_back() -> None:
    """Each is sure that the other one keeps everything."""

    async def scene(group: Group) -> None:
        first, second = group.workers
        for worker, other in ((first, second), (second, first)):
            worker.members = type(worker.members)(
                worker.address, {(t, p): other.address for t in ("slo-partials", "heartbeats") for p in ALL}
            )
        status, answer = await group.get(first, f"/api/v1/slos/{SLOS[0]}")
        assert status == 503
        assert "kept by another worker; the question was passed on once, and is not passed on again" in answer["error"]
        assert answer["error"].startswith(f"worker {second.address}: ")
        assert await group.get(first, "/api/v1/fleet") != (200, {})
        paths = [f"/api/v1/slos/{SLOS[0]}", "/api/v1/fleet"]
        assert first.asked == [(path, None) for path in paths]
        assert second.asked == [(path, "1") for path in paths]

    play(scene, Worker((), BEATS), Worker((), BEATS))


def test_who_is_asked_alone_answers_for_what_it_keeps() -> None:
    async def scene(group: Group) -> None:
        first, second = group.workers
        for name in SLOS:
            place = home(name)
            status, _ = await group.get(first, f"/api/v1/slos/{name}", alone=True)
            assert status == (200 if place in (0, 2) else 503)
        _, listed = await group.get(first, "/api/v1/slos", alone=True)
        assert {e["id"] for e in listed["slos"] if "unavailable" not in e} == {n for n in SLOS if home(n) in (0, 2)}
        _, fleet = await group.get(first, "/api/v1/fleet", alone=True)
        assert sorted(fleet["offsets"]["heartbeats"]) == ["0", "2"]
        assert second.asked == []

    play(scene, *pair())


def test_headers_of_whoever_asks_are_not_passed_on() -> None:
    seen: list[dict[str, str]] = []

    async def scene(group: Group) -> None:
        async def note(request: web.Request) -> web.Response:
            seen.append(dict(request.headers))
            return web.json_response({"id": request.path.rpartition("/")[2]})

        server = TestServer(web.Application())
        server.app.router.add_get("/{any:.*}", note)
        await server.start_server()
        group.push_async_callback(server.close)
        group.agree(**{f"p{p}": f"127.0.0.1:{server.port}" for p in (1, 3)})
        name = next(n for n in SLOS if home(n) in (1, 3))
        async with group._session.get(
            f"http://{group.workers[0].address}/api/v1/slos/{name}", headers={"Authorization": "secret", "Cookie": "c"}
        ) as answer:
            assert answer.status == 200
        assert not {"Authorization", "Cookie"} & set(seen[0])

    play(scene, Worker((0, 2), BEATS))


async def _silent(_: web.Request) -> web.Response:
    await asyncio.sleep(30)
    raise AssertionError


async def _elsewhere(request: web.Request) -> web.Response:
    raise web.HTTPFound(f"http://{request.host}/other")


async def _no_json(_: web.Request) -> web.Response:
    return web.Response(text="<html>")


async def _a_list(_: web.Request) -> web.Response:
    return web.json_response([1])


async def _nothing(_: web.Request) -> web.Response:
    return web.json_response({})


async def _nothing_found(_: web.Request) -> web.Response:
    return web.json_response({}, status=404)


async def _deep(_: web.Request) -> web.Response:
    return web.Response(text='{"a": ' + "[" * 100_000, content_type="application/json")


async def _broken(_: web.Request) -> web.Response:
    return web.json_response({"error": "internal error"}, status=500)


@pytest.mark.parametrize(
    ("handler", "says", "counted"),
    [
        (None, "cannot be asked: Cannot connect", "failed"),
        (_silent, "has not answered within 2 s", "timeout"),
        (_elsewhere, "cannot be asked: ", "failed"),
        (_no_json, "cannot be asked: ", "failed"),
        (_a_list, "cannot be asked: answered b'[1]'; expected a JSON object", "failed"),
        (_nothing_found, "cannot be asked: answered 404 b'{}'; expected what is not found", "failed"),
        (_deep, "cannot be asked: maximum recursion depth", "failed"),
        (_broken, "answered 500: internal error", "refused"),
    ],
    ids=["gone", "silent", "redirects", "no JSON", "a list", "nothing found", "too deep", "broken"],
)
def test_a_worker_that_does_not_answer_is_named_and_nothing_is_quietly_left_out(
    handler: Callable[[web.Request], Awaitable[web.Response]] | None, says: str, counted: str
) -> None:
    async def scene(group: Group) -> None:
        address = "127.0.0.1:9"
        if handler is not None:
            server = TestServer(web.Application())
            server.app.router.add_get("/{any:.*}", handler)
            await server.start_server(shutdown_timeout=0.01)
            group.push_async_callback(server.close)
            address = f"127.0.0.1:{server.port}"
        group.agree(p1=address, p3=address)
        (worker,) = group.workers
        elsewhere = next(name for name in SLOS if home(name) in (1, 3))
        lost = next(name for name in NAMES if home(name) in (1, 3))
        here = next(name for name in NAMES if home(name) in (0, 2))
        before, begun = outcome(counted), time.monotonic()
        paths = (f"/api/v1/slos/{elsewhere}", "/api/v1/fleet", "/api/v1/nodes", f"/api/v1/nodes/{lost}")
        answers = await asyncio.gather(*[group.get(worker, path) for path in paths])
        for path, (status, answer) in zip(paths, answers, strict=True):
            assert status == 503, path
            assert answer["error"].startswith(f"worker {address}"), answer
            assert says in answer["error"]
        assert outcome(counted) == before + 4
        status, answer = await group.get(worker, "/api/v1/slos")
        assert status == 200
        assert [e["id"] for e in answer["slos"]] == list(SLOS)
        for entry in answer["slos"]:
            assert ("unavailable" in entry) == (home(entry["id"]) in (1, 3))
            assert says in entry.get("unavailable", says)
        assert (await group.get(worker, f"/api/v1/nodes/{here}"))[0] == 200
        assert (await group.get(worker, "/api/v1/nodes/nobody"))[0] == 503  # it may be there
        assert time.monotonic() - begun < 25  # of the 30 s that the silent one takes each time

    play(scene, Worker((0, 2), BEATS))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"slos": 5, "offsets": 5},
        {"slos": [5], "offsets": {"heartbeats": {"1": 1, "3": 1}}, "nodes": [{}], "zones": [1]},
        {"slos": [{}], "offsets": {"heartbeats": {"x": 1}}, "id": "another", "node_id": "another"},
    ],
    ids=["nothing", "numbers", "no such things", "about another"],
)
def test_an_answer_of_somebody_else_is_nobodys(body: dict[str, Any]) -> None:
    async def somebody(_: web.Request) -> web.Response:
        return web.json_response(body)

    async def scene(group: Group) -> None:
        server = TestServer(web.Application())
        server.app.router.add_get("/{any:.*}", somebody)
        await server.start_server()
        group.push_async_callback(server.close)
        group.agree(**{f"p{p}": f"127.0.0.1:{server.port}" for p in (1, 3)})
        (worker,) = group.workers
        elsewhere = next(name for name in SLOS if home(name) in (1, 3))
        lost = next(name for name in NAMES if home(name) in (1, 3))
        asked = f"/api/v1/slos/{elsewhere}", f"/api/v1/slos/{elsewhere}/slices?from_ms=1&to_ms=2"
        for path in (*asked, "/api/v1/fleet", "/api/v1/nodes", f"/api/v1/nodes/{lost}", "/api/v1/nodes/nobody"):
            status, answer = await group.get(worker, path)
            assert status == 503, (path, answer)
            assert "expected" in answer["error"] or "try again" in answer["error"], answer
        status, answer = await group.get(worker, "/api/v1/slos")
        assert status == 200
        assert {e["id"] for e in answer["slos"] if "unavailable" in e} == {n for n in SLOS if home(n) in (1, 3)}

    play(scene, Worker((0, 2), BEATS))


def test_a_worker_that_recovers_says_so_through_the_other() -> None:
    async def scene(group: Group) -> None:
        first, second = group.workers
        second.slos.why = "the worker is recovering its tables"
        second.nodes.recovered = False
        name = next(name for name in SLOS if home(name) in second.slos.kept)
        status, answer = await group.get(first, f"/api/v1/slos/{name}")
        assert (status, answer["error"]) == (503, f"worker {second.address}: the worker is recovering its tables")
        status, answer = await group.get(first, "/api/v1/nodes")
        assert status == 503
        assert f"worker {second.address}: the worker is recovering its nodes" in answer["error"]

    play(scene, *pair())


@pytest.mark.parametrize(
    ("second", "says"),
    [((1,), "no worker answers for partitions [3]"), ((1, 2, 3), "several workers answer for partitions [2]")],
    ids=["nobody keeps it", "two keep it"],
)
def test_while_workers_change_places_a_part_is_not_given_for_all(second: tuple[int, ...], says: str) -> None:
    async def scene(group: Group) -> None:
        for path in ("/api/v1/fleet", "/api/v1/nodes", "/api/v1/nodes/nobody"):
            status, answer = await group.get(group.workers[0], path)
            assert status == 503, path
            assert says in answer["error"]

    play(scene, Worker((0, 2), BEATS), Worker(second, BEATS))


def test_who_shares_its_address_with_another_says_so() -> None:
    """As far as the group knows it keeps everything."""

    async def scene(group: Group) -> None:
        (worker,) = group.workers
        group.agree(**{f"p{partition}": worker.address for partition in ALL})
        name = next(name for name in SLOS if home(name) in (1, 3))
        for path in (f"/api/v1/slos/{name}", "/api/v1/fleet", "/api/v1/nodes/nobody"):
            status, answer = await group.get(worker, path)
            assert status == 503, path
            assert "see --advertise" in answer["error"]

    play(scene, Worker((0, 2), BEATS))


def test_an_objective_that_only_some_workers_know_is_not_missing_silently() -> None:
    async def scene(group: Group) -> None:
        first, second = group.workers
        unknown = next(name for name in SLOS if home(name) in second.slos.kept)
        second.slos._known = tuple(o for o in second.slos._known if o.id != unknown)
        _, answer = await group.get(first, "/api/v1/slos")
        (entry,) = [e for e in answer["slos"] if e["id"] == unknown]
        assert "expected the same objectives at every worker" in entry["unavailable"]

    play(scene, *pair())


def test_a_zone_is_lost_when_one_worker_says_so() -> None:
    async def scene(group: Group) -> None:
        first, second = group.workers
        first.nodes.judge.zones["eu", "x"] = ZoneState(OUTAGE, 70)
        second.nodes.judge.zones |= {("eu", "x"): ZoneState(OUTAGE, 50), ("eu", "y"): ZoneState(OUTAGE, 60)}
        _, fleet = await group.get(first, "/api/v1/fleet")
        assert fleet["outages"] == [
            {"region": "eu", "zone": "x", "since_ms": 50},
            {"region": "eu", "zone": "y", "since_ms": 60},
        ]
        assert [zone["outage_since_ms"] for zone in fleet["zones"]] == [50, 60, None]

    play(scene, *pair())
