"""The HTTP views: what each path answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.catalog import load_catalog
from streams.processors.node_queries import NodeQueries
from streams.processors.queries import NotHereError, Queries
from streams.views.answers import bad_request, error, json_response, not_found
from streams.views.nodes import PATHS as NODE_PATHS
from streams.views.nodes import node_routes
from streams.views.payloads import objective_payload, slices_payload, standing_payload
from streams.views.registry import registry_routes

MAX_SLICES_MS = 3_600_000
log = structlog.get_logger("fleetbeat.views")


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the worker may be sent requests; `reason` is empty when it may."""

    ready: bool
    reason: str


def create_views(queries: Queries, nodes: NodeQueries, health: Callable[[], Health]) -> web.Application:
    """The worker's views as an aiohttp application."""
    views = _Views(queries, health)
    application = web.Application(middlewares=[_errors], client_max_size=1 << 20)
    application.add_routes(
        [
            web.get("/", views.index),
            web.get("/api/v1/slos", views.slos),
            web.get("/api/v1/slos/{id}", views.slo),
            web.get("/api/v1/slos/{id}/slices", views.slices),
            *node_routes(nodes),
            web.get("/-/healthy", views.healthy),
            web.get("/-/ready", views.ready),
            web.get("/metrics", views.metrics),
            *registry_routes(load_catalog()),
        ]
    )
    return application


class _Views:
    def __init__(self, queries: Queries, health: Callable[[], Health]) -> None:
        self._queries = queries
        self._health = health

    async def index(self, _: web.Request) -> web.Response:
        paths = ["/api/v1/slos", "/api/v1/slos/{id}", "/api/v1/slos/{id}/slices?from_ms=&to_ms=", *NODE_PATHS]
        return json_response(
            {"service": "fleetbeat worker", "paths": [*paths, "/subjects", "/metrics", "/-/healthy", "/-/ready"]}
        )

    async def slos(self, _: web.Request) -> web.Response:
        """Every objective; those that cannot be answered now say why instead of showing figures."""
        answers = await asyncio.gather(*[self._entry(objective.id) for objective in self._queries.objectives()])
        return json_response({"slos": answers})

    async def slo(self, request: web.Request) -> web.Response:
        standing = await self._queries.standing(self._known(request))
        return json_response(standing_payload(standing, self._queries.completeness()))

    async def slices(self, request: web.Request) -> web.Response:
        objective_id = self._known(request)
        from_ms, to_ms = _number(request, "from_ms"), _number(request, "to_ms")
        if not 0 < to_ms - from_ms <= MAX_SLICES_MS:
            raise bad_request(f"to_ms - from_ms: value {to_ms - from_ms}; expected 1 to {MAX_SLICES_MS}")
        slices = await self._queries.slices(objective_id, from_ms, to_ms)
        return json_response(slices_payload(slices, self._queries.completeness()))

    async def healthy(self, _: web.Request) -> web.Response:
        return json_response({"healthy": True})

    async def ready(self, _: web.Request) -> web.Response:
        health = self._health()
        return json_response({"ready": health.ready, "reason": health.reason}, status=200 if health.ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _known(self, request: web.Request) -> str:
        objective_id = request.match_info["id"]
        known = [objective.id for objective in self._queries.objectives()]
        if objective_id not in known:
            raise not_found(f"no objective {objective_id!r}; expected one of {known}")
        return objective_id

    async def _entry(self, objective_id: str) -> dict[str, object]:
        try:
            return standing_payload(await self._queries.standing(objective_id), self._queries.completeness())
        except NotHereError as reason:
            objective = next(o for o in self._queries.objectives() if o.id == objective_id)
            return {**objective_payload(objective), "unavailable": str(reason)}


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotHereError as reason:
        return web.Response(
            status=503, body=error(str(reason)), content_type="application/json", headers={"Retry-After": "2"}
        )
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("view failed", path=request.path)
        return web.Response(
            status=500, body=error("internal error; see the worker's log"), content_type="application/json"
        )


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "")
    if not text.isdecimal() or len(text) > 15:  # noqa: PLR2004 - milliseconds of 30,000 years
        raise bad_request(f"{name}: value {text!r}; expected milliseconds since 1970, UTC")
    return int(text)
