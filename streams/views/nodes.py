"""The views of nodes: one, a list in pages, and the fleet in figures."""

import asyncio
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import polars as pl
from aiohttp import web
from multidict import MultiMapping

from streams.core.liveness.reads import Node, NodeQuery
from streams.core.liveness.states import DOWN, LATE, STATES, SUSPECT
from streams.core.liveness.zones import Zone, ZoneState
from streams.processors.node_queries import Basis, FleetAnswer, NodeQueries, NodesAnswer
from streams.views.answers import bad_request, json_response, not_found

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
MAX_NAME_BYTES = 255
# Nodes name their zones themselves: of more than these only the largest are shown.
MAX_ZONES = 1_000
_SILENT = {STATES[state] for state in (LATE, SUSPECT, DOWN)}
_FACTS = tuple(field.name for field in fields(Node))
_PARAMETERS = ("state", "zone", "region", "limit", "after")

PATHS = ("/api/v1/fleet", "/api/v1/nodes?state=&zone=&region=&limit=&after=", "/api/v1/nodes/{id}")


def node_routes(queries: NodeQueries) -> list[web.RouteDef]:
    """The routes of PATHS."""
    views = _NodeViews(queries)
    return [
        web.get("/api/v1/fleet", views.fleet),
        web.get("/api/v1/nodes", views.nodes),
        web.get("/api/v1/nodes/{id:.+}", views.node),
    ]


class _NodeViews:
    def __init__(self, queries: NodeQueries) -> None:
        self._queries = queries

    async def fleet(self, _: web.Request) -> web.Response:
        return json_response(_fleet_payload(await self._queries.fleet()))

    async def nodes(self, request: web.Request) -> web.Response:
        """`next` is the `after` of the next page; null on the last one."""
        query = _query(request.query)
        answer = await self._queries.nodes(query)
        return await asyncio.to_thread(_list_response, answer, query.limit)  # a thousand nodes take their time

    async def node(self, request: web.Request) -> web.Response:
        node_id = request.match_info["id"]
        answer = await self._queries.node(node_id)
        if not answer.nodes:
            raise not_found(f"no node {node_id[:MAX_NAME_BYTES]!r}; expected one that has sent heartbeats")
        return json_response({**_node_payload(answer.nodes[0], answer.outages), **_basis_payload(answer.basis)})


def _list_response(answer: NodesAnswer, limit: int) -> web.Response:
    nodes = [_node_payload(node, answer.outages) for node in answer.nodes]
    more = answer.nodes[-1].node_id if len(nodes) == limit else None
    return json_response({"nodes": nodes, "next": more, **_basis_payload(answer.basis)})


def _query(asked: MultiMapping[str]) -> NodeQuery:
    """Raises HTTPBadRequest."""
    if len(set(asked)) < len(asked):
        raise bad_request(f"parameters {list(asked)[:10]}; expected each once")
    unknown = [name for name in asked if name not in _PARAMETERS]
    if unknown:
        raise bad_request(f"{unknown[0][:100]}: not a parameter; expected {', '.join(_PARAMETERS)}")
    limit = asked.get("limit", str(DEFAULT_LIMIT))
    if not (
        limit.isascii() and limit.isdecimal() and len(limit) <= len(str(MAX_LIMIT)) and 0 < int(limit) <= MAX_LIMIT
    ):
        raise bad_request(f"limit: value {limit[:100]!r}; expected 1 to {MAX_LIMIT}")
    state = asked.get("state")
    if state is not None and state not in STATES:
        raise bad_request(f"state: value {state[:100]!r}; expected one of {', '.join(STATES)}")
    for name in ("zone", "region", "after"):
        if name in asked and not 0 < len(asked[name].encode(errors="replace")) <= MAX_NAME_BYTES:
            raise bad_request(f"{name}: value {asked[name][:100]!r}; expected 1 to {MAX_NAME_BYTES} bytes")
    places = {name: asked.get(name) for name in ("region", "zone", "after")}
    return NodeQuery(limit=int(limit), state=state, **places)


def _node_payload(node: Node, outages: Mapping[Zone, ZoneState]) -> dict[str, Any]:
    """`cause` says when a node's silence is its zone's."""
    held = node.state in _SILENT and (node.region, node.zone) in outages
    return {**{name: getattr(node, name) for name in _FACTS}, "cause": "telemetry-outage" if held else None}


def _fleet_payload(answer: FleetAnswer) -> dict[str, Any]:
    counts = answer.counts
    largest = counts.zones.with_columns(known=pl.sum_horizontal(STATES)).top_k(MAX_ZONES, by="known")
    return {
        "known": sum(counts.states.values()),
        "nodes": counts.states,
        "totals": {name: getattr(counts, name) for name in ("heartbeats", "lost", "restarts", "refused")},
        "zones_known": counts.zones.height,
        "zones": [_zone_payload(row, answer.outages) for row in largest.sort("region", "zone").iter_rows(named=True)],
        "outages": [
            {"region": region, "zone": zone, "since_ms": known.since_ms}
            for (region, zone), known in sorted(answer.outages.items())
        ],
        **_basis_payload(answer.basis),
    }


def _zone_payload(row: Mapping[str, Any], outages: Mapping[Zone, ZoneState]) -> dict[str, Any]:
    outage = outages.get((row["region"], row["zone"]))
    return {
        "region": row["region"],
        "zone": row["zone"],
        "known": row["known"],
        "nodes": {state: row[state] for state in STATES},
        "outage_since_ms": None if outage is None else outage.since_ms,
    }


def _basis_payload(basis: Basis) -> dict[str, Any]:
    return {
        "complete_to_ms": basis.complete_to_ms,
        "staleness_ms": basis.staleness_ms,
        "offsets": {"heartbeats": {str(partition): applied for partition, applied in basis.offsets.items()}},
    }
