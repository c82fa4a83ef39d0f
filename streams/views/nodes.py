"""The views of nodes: one, a list in pages, and the fleet in figures."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any
from urllib.parse import quote

import polars as pl
from aiohttp import web
from multidict import MultiMapping

from streams.core.liveness.reads import Node, NodeQuery
from streams.core.liveness.states import DOWN, LATE, STATES, SUSPECT
from streams.core.liveness.zones import Zone, ZoneState
from streams.processors.node_queries import Basis, FleetAnswer, NodeQueries, NodesAnswer
from streams.processors.node_recovery import SOURCE
from streams.views.answers import bad_request, json_response
from streams.views.merging import MAX_SHARED_ZONES, Json, merged_fleet, merged_nodes, require_whole
from streams.views.parameters import require_known, whole_number
from streams.views.peers import Asked, Peers, Reply, passed_on

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
MAX_NAME_BYTES = 255
_SILENT = {STATES[state] for state in (LATE, SUSPECT, DOWN)}
_FACTS = tuple(field.name for field in fields(Node))
_PARAMETERS = ("state", "zone", "region", "limit", "after")

PATHS = ("/api/v1/fleet", "/api/v1/nodes?state=&zone=&region=&limit=&after=", "/api/v1/nodes/{id}")


def node_routes(queries: NodeQueries, peers: Peers, partitions: int) -> list[web.RouteDef]:
    """The routes of PATHS."""
    views = _NodeViews(queries, peers, partitions)
    return [
        web.get("/api/v1/fleet", views.fleet),
        web.get("/api/v1/nodes", views.nodes),
        web.get("/api/v1/nodes/{id:.+}", views.node),
    ]


class _NodeViews:
    """Each question is about all workers' nodes; one that was passed on is about those that this worker keeps."""

    def __init__(self, queries: NodeQueries, peers: Peers, partitions: int) -> None:
        self._queries = queries
        self._peers = peers
        self._partitions = partitions

    async def fleet(self, request: web.Request) -> web.Response:
        require_known(request.query, ())
        if passed_on(request):
            return json_response(_fleet_payload(await self._queries.fleet(), MAX_SHARED_ZONES))
        answers = await self._of_all("/api/v1/fleet", {}, self._own_fleet)
        return json_response(merged_fleet(answers))

    async def nodes(self, request: web.Request) -> web.Response:
        """`next` is the `after` of the next page; null on the last one."""
        query = _query(request.query)
        if passed_on(request):
            answer = await self._queries.nodes(query)
            return await asyncio.to_thread(lambda: json_response(_list_payload(answer, query.limit)))
        asked = {"limit": str(query.limit), **{name: request.query[name] for name in request.query}}
        answers = await self._of_all("/api/v1/nodes", asked, partial(self._own_nodes, query))
        # A thousand nodes take their time.
        return await asyncio.to_thread(lambda: json_response(merged_nodes(answers, query.limit)))

    async def node(self, request: web.Request) -> web.Response:
        node_id = request.match_info["id"]
        require_known(request.query, ())
        if passed_on(request):
            return _node_response(await self._own_node(node_id))
        path, about = f"/api/v1/nodes/{quote(node_id, safe='', errors='replace')}", {"node_id": node_id}
        home = self._peers.members.keeper(SOURCE, self._queries.partition(node_id))
        first = await self._own_node(node_id) if home is None else await self._peers.ask(Asked(home, path, about=about))
        if first.found:
            return _node_response(first)
        others = [address for address in self._peers.members.others(SOURCE) if address != home]
        rest = await self._peers.ask_all(others, path, {}, about)
        if home is not None and self._keeps_some():
            rest.append(await self._own_node(node_id))
        found = next((reply for reply in rest if reply.found), first)
        if not found.found:  # then nobody who could know it may be missing
            require_whole([reply.body for reply in (first, *rest)], SOURCE, self._partitions)
        return _node_response(found)

    async def _of_all(self, path: str, query: Mapping[str, str], own: Callable[[], Awaitable[Json]]) -> list[Json]:
        """Everyone's answer about what they keep, together about every partition. Raises NotHereError."""
        replies = self._peers.ask_all(self._peers.members.others(SOURCE), path, query)
        if self._keeps_some():
            own_answer, others = await asyncio.gather(own(), replies)
            answers = [own_answer, *(reply.body for reply in others)]
        else:
            answers = [reply.body for reply in await replies]
        require_whole(answers, SOURCE, self._partitions)
        return answers

    def _keeps_some(self) -> bool:
        members = self._peers.members
        return not members.keepers or any(
            members.keepers.get((SOURCE, partition)) == members.own for partition in range(self._partitions)
        )

    async def _own_fleet(self) -> Json:
        return _fleet_payload(await self._queries.fleet(), MAX_SHARED_ZONES)

    async def _own_nodes(self, query: NodeQuery) -> Json:
        answer = await self._queries.nodes(query)
        return await asyncio.to_thread(_list_payload, answer, query.limit)

    async def _own_node(self, node_id: str) -> Reply:
        answer = await self._queries.node(node_id)
        if not answer.nodes:
            message = f"no node {node_id[:MAX_NAME_BYTES]!r}; expected one that has sent heartbeats"
            return Reply(found=False, body={"error": message, **_basis_payload(answer.basis)})
        node = _node_payload(answer.nodes[0], answer.outages)
        return Reply(found=True, body={**node, **_basis_payload(answer.basis)})


def _node_response(reply: Reply) -> web.Response:
    return json_response(reply.body, status=200 if reply.found else 404)


def _list_payload(answer: NodesAnswer, limit: int) -> Json:
    nodes = [_node_payload(node, answer.outages) for node in answer.nodes]
    more = answer.nodes[-1].node_id if len(nodes) == limit else None
    return {"nodes": nodes, "next": more, **_basis_payload(answer.basis)}


def _query(asked: MultiMapping[str]) -> NodeQuery:
    """Raises HTTPBadRequest."""
    require_known(asked, _PARAMETERS)
    limit = whole_number(asked, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    state = asked.get("state")
    if state is not None and state not in STATES:
        raise bad_request(f"state: value {state[:100]!r}; expected one of {', '.join(STATES)}")
    for name in ("zone", "region", "after"):
        if name in asked and not 0 < len(asked[name].encode(errors="replace")) <= MAX_NAME_BYTES:
            raise bad_request(f"{name}: value {asked[name][:100]!r}; expected 1 to {MAX_NAME_BYTES} bytes")
    places = {name: asked.get(name) for name in ("region", "zone", "after")}
    return NodeQuery(limit=limit, state=state, **places)


def _node_payload(node: Node, outages: Mapping[Zone, ZoneState]) -> Json:
    """`cause` says when a node's silence is its zone's."""
    held = node.state in _SILENT and (node.region, node.zone) in outages
    return {**{name: getattr(node, name) for name in _FACTS}, "cause": "telemetry-outage" if held else None}


def _fleet_payload(answer: FleetAnswer, max_zones: int) -> Json:
    counts = answer.counts
    largest = counts.zones.with_columns(known=pl.sum_horizontal(STATES)).top_k(max_zones, by="known")
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


def _zone_payload(row: Mapping[str, Any], outages: Mapping[Zone, ZoneState]) -> Json:
    outage = outages.get((row["region"], row["zone"]))
    return {
        "region": row["region"],
        "zone": row["zone"],
        "known": row["known"],
        "nodes": {state: row[state] for state in STATES},
        "outage_since_ms": None if outage is None else outage.since_ms,
    }


def _basis_payload(basis: Basis) -> Json:
    return {
        "complete_to_ms": basis.complete_to_ms,
        "staleness_ms": basis.staleness_ms,
        "offsets": {SOURCE: {str(partition): applied for partition, applied in basis.offsets.items()}},
    }
