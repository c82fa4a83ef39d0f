"""Workers that are nothing but views over tables in memory, with real HTTP between them."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from streams.core.liveness.admission import Limits
from streams.core.liveness.table import NodeTable
from streams.core.objectives import Objective, Selector
from streams.core.routing import Members
from streams.core.slices import SECONDS, Tier
from streams.core.standing import Figures
from streams.core.versions import Stretch
from streams.core.windows import Summary, sliding
from streams.engine.partitioning import partition_of
from streams.processors.node_clock import BrokerClock
from streams.processors.node_parts import Part
from streams.processors.node_queries import NodeQueries
from streams.processors.queries import Completeness, KeptElsewhereError, NotHereError, Slices, Standing
from streams.views.peers import Peers
from streams.views.routes import Health, Tables, create_views
from tests.unit.liveness_world import START_MS, Beat, fold

PARTITIONS = 4
NOW_MS = START_MS + 60_000
SLOS = tuple(f"slo-{n}" for n in range(8))


def home(node_id: str) -> int:
    return partition_of(node_id.encode(), PARTITIONS)


class Slos:
    """One figure an objective, which no other has; `why` says why there is none."""

    def __init__(self, kept: Collection[int], known: Iterable[str] = SLOS) -> None:
        self.kept = set(kept)
        self.why = ""
        self._known = tuple(Objective(name, "s", name, Selector(), None, 0.99, 604_800) for name in known)

    def objectives(self) -> tuple[Objective, ...]:
        return self._known

    def partition(self, objective: Objective) -> int:
        return partition_of(objective.id.encode(), PARTITIONS)

    def completeness(self) -> Completeness:
        return Completeness(NOW_MS, 5)

    async def standing(self, objective_id: str) -> Standing:
        objective = self._kept(objective_id)
        summary = Summary(0, total=1_000 + SLOS.index(objective_id), good=900)
        place = self.partition(objective)
        return Standing(
            objective,
            (Stretch(objective.version, 0),),
            Figures(((sliding(60, NOW_MS), summary),), (), 1.0, None, ()),
            NOW_MS,
            place,
            77,
            NOW_MS,
        )

    async def slices(
        self, objective_id: str, from_ms: int, to_ms: int, tier: Tier = SECONDS, *, with_past: bool = False
    ) -> Slices:
        objective = self._kept(objective_id)
        assert (tier, with_past) == (SECONDS, True)
        step = Summary(from_ms // 1_000, total=to_ms - from_ms, good=SLOS.index(objective_id))
        return Slices(objective, (Stretch(objective.version, 0),), (step,), self.partition(objective), 77, NOW_MS)

    def _kept(self, objective_id: str) -> Objective:
        objective = next(o for o in self._known if o.id == objective_id)
        if self.why:
            raise NotHereError(self.why)
        if self.partition(objective) not in self.kept:
            raise KeptElsewhereError(f"partition {self.partition(objective)} of slo-partials is kept by another worker")
        return objective


@dataclass(slots=True)
class Nodes:
    """What `LivenessProcessor` is to its queries."""

    parts: dict[int, Part]
    recovered: bool = True
    heard_of: bool = True
    judge: Any = field(default_factory=lambda: SimpleNamespace(zones={}))

    async def in_thread(self, step: Any) -> Any:  # noqa: ANN401 - whatever it returns
        return step()


def parts_of(beats: Mapping[int, list[Beat]], kept: Iterable[int]) -> dict[int, Part]:
    """Tables of some partitions; `beats` by partition."""
    parts = {}
    for partition in kept:
        table = NodeTable(Limits(10_000, 10_000), seed=partition)
        log = beats.get(partition, [])
        if log:
            fold(table, log)
        part = Part(partition, Limits(1, 1), table, BrokerClock(), len(log), "owner")
        part.now_ms = NOW_MS + partition
        parts[partition] = part
    return parts


class Worker:
    """Views at an address of their own; `members` is what the group has agreed, as this worker knows it."""

    def __init__(self, kept: Collection[int], beats: Mapping[int, list[Beat]] | None = None) -> None:
        self.slos = Slos(kept)
        self.nodes = Nodes(parts_of(beats or {}, kept))
        self.members = Members("")
        self.asked: list[tuple[str, str | None]] = []
        queries = NodeQueries(self.nodes, PARTITIONS, lambda: NOW_MS + 1_000)  # type: ignore[arg-type]
        self.peers = Peers(lambda: self.members, timeout_s=2.0)
        self.rings = SimpleNamespace()  # whoever asks of the last minute says what `counts` answers
        tables = Tables(self.slos, queries, self.rings, dict, PARTITIONS)
        views = create_views(tables, self.peers, lambda: Health(ready=True, reason=""))
        views.middlewares.insert(0, self._note)
        self.server = TestServer(views)

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401 - aiohttp's
        self.asked.append((request.path, request.headers.get("Fleetbeat-Hop")))
        return await handler(request)  # type: ignore[no-any-return]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


class Group(AsyncExitStack):
    """Workers that run while the context lasts, and who asks them."""

    def __init__(self, *workers: Worker) -> None:
        super().__init__()
        self.workers = workers

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._session = await self.enter_async_context(ClientSession())
        for worker in self.workers:
            await worker.server.start_server()
            self.push_async_callback(worker.server.close)
        self.agree()
        return self

    def agree(self, **elsewhere: str) -> None:
        """Everyone knows who keeps what; `elsewhere` names addresses for some partitions, as p0="127.0.0.1:9"."""
        keepers = {p: worker.address for worker in self.workers for p in worker.slos.kept}
        keepers |= {int(name[1:]): address for name, address in elsewhere.items()}
        for worker in self.workers:
            both = {
                (topic, p): a for p, a in keepers.items() for topic in ("slo-partials", "heartbeats", "probe-results")
            }
            worker.members = Members(worker.address, both)

    async def get(self, worker: Worker, path: str, *, alone: bool = False) -> tuple[int, Any]:
        headers = {"Fleetbeat-Hop": "1"} if alone else {}
        async with self._session.get(f"http://{worker.address}{path}", headers=headers) as answer:
            if answer.status == 503:
                assert answer.headers["Retry-After"] == "2"
            return answer.status, await answer.json()
