"""The HTTP views: what each path answers."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.catalog import load_catalog
from streams.core.completeness import Tip
from streams.core.objectives import Objective
from streams.processors.node_queries import NodeQueries
from streams.processors.queries import NotHereError, Queries
from streams.processors.slo_recovery import PARTIALS
from streams.views.answers import MAX_SHOWN, bad_request, json_response, not_found
from streams.views.errors import errors
from streams.views.live import PATH as LIVE_PATH
from streams.views.live import LiveView, Rings
from streams.views.merging import readable
from streams.views.nodes import PATHS as NODE_PATHS
from streams.views.nodes import node_routes
from streams.views.parameters import moment_ms, require_known
from streams.views.payloads import objective_payload, slices_payload, standing_payload
from streams.views.peers import Asked, Peers, passed_on
from streams.views.registry import registry_routes
from streams.views.tips import TIPS_PATH, tips_payload

MAX_SLICES_MS = 3_600_000
_SPAN = ("from_ms", "to_ms")
SLO_PATHS = ("/api/v1/slos", "/api/v1/slos/{id}", "/api/v1/slos/{id}/slices?from_ms=&to_ms=", LIVE_PATH)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the worker may be sent requests; `reason` is empty when it may."""

    ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Tables:
    """What the views ask: SLOs, nodes, rings (each spread over `partitions`), and the logs that this worker reads."""

    slos: Queries
    nodes: NodeQueries
    live: Rings
    tips: Callable[[], Mapping[int, Tip]]
    partitions: int


def create_views(tables: Tables, peers: Peers, health: Callable[[], Health]) -> web.Application:
    """The worker's views as an aiohttp application."""
    views = _Views(tables, peers, health)
    application = web.Application(middlewares=[errors], client_max_size=1 << 20)
    application.add_routes(
        [
            web.get("/", views.index),
            web.get("/api/v1/slos", views.slos),
            web.get("/api/v1/slos/{id}", views.slo),
            web.get("/api/v1/slos/{id}/slices", views.slices),
            web.get("/api/v1/slos/{id}/live", views.live),
            *node_routes(tables.nodes, peers, tables.partitions),
            web.get(TIPS_PATH, views.tips),
            web.get("/-/healthy", views.healthy),
            web.get("/-/ready", views.ready),
            web.get("/metrics", views.metrics),
            *registry_routes(load_catalog()),
        ]
    )

    async def close(_: web.Application) -> None:
        await peers.close()

    application.on_cleanup.append(close)
    return application


class _Views:
    def __init__(self, tables: Tables, peers: Peers, health: Callable[[], Health]) -> None:
        self._queries = tables.slos
        self._tips = tables.tips
        self._peers = peers
        self._health = health
        self._live = LiveView(tables.live, peers, tables.slos.completeness, tables.partitions)

    async def index(self, _: web.Request) -> web.Response:
        paths = [*SLO_PATHS, *NODE_PATHS]
        return json_response(
            {"service": "fleetbeat worker", "paths": [*paths, "/subjects", "/metrics", "/-/healthy", "/-/ready"]}
        )

    async def slos(self, request: web.Request) -> web.Response:
        """Every objective; those that cannot be answered now say why instead of showing figures."""
        require_known(request.query, ())
        objectives = self._queries.objectives()
        keepers = {o.id: None if passed_on(request) else self._keeper(o) for o in objectives}
        others = sorted({address for address in keepers.values() if address is not None})
        lists = dict(zip(others, await asyncio.gather(*map(self._list_of, others)), strict=True))
        answers = [
            await self._entry(objective) if (address := keepers[objective.id]) is None else lists[address](objective)
            for objective in objectives
        ]
        return json_response({"slos": answers})

    async def slo(self, request: web.Request) -> web.Response:
        objective = self._known(request)
        require_known(request.query, ())
        address = None if passed_on(request) else self._keeper(objective)
        if address is not None:
            return await self._passed_on(Asked(address, f"/api/v1/slos/{objective.id}", about={"id": objective.id}))
        return json_response(await self._standing(objective))

    async def slices(self, request: web.Request) -> web.Response:
        objective = self._known(request)
        require_known(request.query, _SPAN)
        from_ms, to_ms = (moment_ms(request.query, name) for name in _SPAN)
        if not 0 < to_ms - from_ms <= MAX_SLICES_MS:
            raise bad_request(f"to_ms - from_ms: value {to_ms - from_ms}; expected 1 to {MAX_SLICES_MS}")
        address = None if passed_on(request) else self._keeper(objective)
        if address is not None:
            path, span = f"/api/v1/slos/{objective.id}/slices", {"from_ms": str(from_ms), "to_ms": str(to_ms)}
            return await self._passed_on(Asked(address, path, span, about={"id": objective.id}))
        fresh = self._queries.completeness()
        return json_response(
            slices_payload(await self._queries.slices(objective.id, from_ms, to_ms, with_past=True), fresh)
        )

    async def live(self, request: web.Request) -> web.Response:
        """The last minute in steps down to a millisecond, of an objective that has a ring."""
        return await self._live.answer(request, self._known(request))

    async def tips(self, _: web.Request) -> web.Response:
        """For other workers: which logs this one has read to their end."""
        return json_response(tips_payload(self._tips(), time.time_ns() // 1_000_000))

    async def healthy(self, _: web.Request) -> web.Response:
        return json_response({"healthy": True})

    async def ready(self, _: web.Request) -> web.Response:
        health = self._health()
        return json_response({"ready": health.ready, "reason": health.reason}, status=200 if health.ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _known(self, request: web.Request) -> Objective:
        objective_id = request.match_info["id"]
        known = {objective.id: objective for objective in self._queries.objectives()}
        if objective_id not in known:
            raise not_found(f"no objective {objective_id[:MAX_SHOWN]!r}; expected one of {list(known)}")
        return known[objective_id]

    def _keeper(self, objective: Objective) -> str | None:
        return self._peers.members.keeper(PARTIALS, self._queries.partition(objective))

    async def _passed_on(self, asked: Asked) -> web.Response:
        reply = await self._peers.ask(asked)
        return json_response(reply.body, status=200 if reply.found else 404)

    async def _standing(self, objective: Objective) -> dict[str, object]:
        fresh = self._queries.completeness()  # before the tables are read: never more than they have
        return standing_payload(await self._queries.standing(objective.id), fresh)

    async def _entry(self, objective: Objective) -> dict[str, object]:
        await asyncio.sleep(0)  # one of many: others come in between
        try:
            return await self._standing(objective)
        except NotHereError as reason:
            return _unavailable(objective, str(reason))

    async def _list_of(self, address: str) -> Callable[[Objective], dict[str, object]]:
        """Another worker's entries, or why there are none."""
        try:
            reply = await self._peers.ask(Asked(address, "/api/v1/slos"))
            with readable():
                entries = {entry["id"]: entry for entry in reply.body.get("slos", ())}
        except NotHereError as cause:
            reason = str(cause)
            return lambda objective: _unavailable(objective, reason)
        unknown = f"worker {address} keeps it and does not know it; expected the same objectives at every worker"
        return lambda objective: entries.get(objective.id) or _unavailable(objective, unknown)


def _unavailable(objective: Objective, reason: str) -> dict[str, object]:
    return {**objective_payload(objective), "unavailable": reason}
