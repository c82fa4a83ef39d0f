"""From exporters to records: over kept connections, through bounded stages, and nothing lost when nobody takes it."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agents.clock import SystemClock
from agents.node import Node
from agents.probes.resolver import SYSTEM_RESOLVER
from agents.probes.url import parse_url
from agents.publish import COUNTS, RESULTS, Drop, Outbox
from agents.schedule import Skip
from agents.scrape import pipeline
from agents.scrape.discover import Found, TargetFileError, read_targets
from agents.scrape.fetch import Fetcher
from agents.scrape.jobs import job_of
from agents.scrape.pipeline import Scraper
from agents.scrape.settings import ScrapeFile
from schemas.records import Label, ProbeResult, RequestCount
from tests.unit.agent_fakes import ListPublisher

NODE = Node("web-17", "eu-1", "eu-1a", (), "boot", 0, 10_000, "0.1.0")


@dataclass
class Shop:
    """An exporter on a port of its own. What it answers may be changed; each answer has served a request more."""

    hits: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    answer: Callable[["Shop"], bytes] = lambda shop: page(f"hits_total {shop.hits}\n")
    port: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                self.hits += 1
                writer.write(self.answer(self))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def page(text: str, *headers: str, status: str = "200 OK", body: bytes | None = None) -> bytes:
    content = text.encode() if body is None else body
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain; version=0.0.4", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


@asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[Shop]:
    server = await asyncio.start_server(shop.talk, "127.0.0.1", 0)
    shop.port = server.sockets[0].getsockname()[1]
    try:
        yield shop
    finally:
        server.close()


async def until(condition: Callable[[], object]) -> None:
    """Waits for what others bring about; pytest's own limit ends it when they do not."""
    while not condition():  # noqa: ASYNC110 - it looks from outside
        await asyncio.sleep(0.01)


def scrape_file(*ports: int, **settings: object) -> ScrapeFile:
    base = {"name": "shop", "service": "shop", "every_s": 0.1, "requests": [{"counter": "hits_total"}]}
    return ScrapeFile.model_validate({**base, "targets": [f"127.0.0.1:{port}" for port in ports], **settings})


def scraper(file: ScrapeFile, publisher: ListPublisher) -> Scraper:
    return Scraper([file], NODE, Outbox(publisher), SystemClock())


def with_shop(case: Callable[[Shop], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(Shop()) as shop:
            await case(shop)

    asyncio.run(main())


def results(publisher: ListPublisher) -> list[ProbeResult]:
    return [record for record in publisher.taken if isinstance(record, ProbeResult)]


def counts(publisher: ListPublisher) -> list[RequestCount]:
    return [record for record in publisher.taken if isinstance(record, RequestCount)]


async def scrapes(one: Scraper, shop: Shop, times: int, **settings: object) -> None:
    """So many scrapes of it, one after the other."""
    exporter = one.exporter(Found(job_of(scrape_file(shop.port, **settings)), f"http://127.0.0.1:{shop.port}/metrics"))
    for _ in range(times):
        await one.scrape(exporter)
    await exporter.fetcher.close()


def test_a_running_scraper_sends_what_was_counted_and_how_each_scrape_went() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        one = scraper(scrape_file(shop.port, labels={"team": "web"}), publisher)
        running = asyncio.create_task(one.run())
        await until(lambda: shop.hits >= 12)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.close()
        found, told = counts(publisher), results(publisher)
        # The last scrape may have been under way when all ended.
        assert sum(record.total for record in found) in {shop.hits - 1, shop.hits - 2}
        assert len(found) < len(told)
        assert all(record.good == record.total for record in found)
        assert {(one.kind, one.probe, one.success, one.error, one.status_code) for one in told} == {
            ("scrape", "shop", True, None, 200)
        }
        assert told[0].labels == (Label("team", "web"), Label("instance", f"127.0.0.1:{shop.port}"))
        assert [record.seq for record in publisher.taken if hasattr(record, "seq")] == list(range(len(publisher.taken)))
        assert shop.connections == 1
        assert one.lineup.waiting == one.pages.qsize() == 0

    with_shop(case)


def test_counts_that_were_not_taken_go_with_later_ones() -> None:
    async def case(shop: Shop) -> None:
        refused: set[str] = set()
        publisher = ListPublisher(lambda topic: Drop.BUFFER_FULL if topic in refused else None)
        one = scraper(scrape_file(shop.port), publisher)
        exporter = one.exporter(one.discovery.targets()[0])
        await one.scrape(exporter)
        for full in ({COUNTS}, {COUNTS, RESULTS}, set(), {RESULTS}, set()):
            refused.clear()
            refused.update(full)
            await one.scrape(exporter)
            one.flush()
        await exporter.fetcher.close()
        assert [record.total for record in counts(publisher)] == [3, 1, 1]
        assert one.figures.kept_back == 2
        assert one.waiting_sums == 0

    with_shop(case)


ANSWERS: dict[str, tuple[Callable[[Shop], bytes], dict[str, object], str | None]] = {
    "status": (lambda _: page("no", status="503 Busy"), {}, "status"),
    "no redirect is followed": (lambda _: page("", "Location: /", status="302 Found"), {}, "status"),
    "html": (lambda _: page("<p>").replace(b"text/plain", b"text/html"), {}, "bad-page"),
    "cut off": (lambda _: page("hits_total 1"), {}, "bad-page"),
    "a line": (lambda _: page("hits_total\n"), {}, "bad-page"),
    "a value": (lambda _: page("hits_total NaN\n"), {}, "bad-sample"),
    "absent": (lambda _: page("up 1\n"), {"requests": [{"counter": "hits_total", "required": True}]}, "metric-missing"),
    "absent, and need not be there": (lambda _: page("up 1\n"), {}, None),
    "too many": (
        lambda _: page("".join(f'hits_total{{a="{n}"}} 1\n' for n in range(9))), {"max_series": 8}, "too-many-series"
    ),
    "too large": (lambda _: page("x" * 2_000 + "\n"), {"max_body_bytes": 1_024}, "too-large"),
    "gzip": (lambda _: page("", "Content-Encoding: gzip", body=gzip.compress(b"hits_total 1\n")), {}, None),
    "a bomb": (
        lambda _: page("", "Content-Encoding: gzip", body=gzip.compress(b"\n" * 5_000_000)),
        {"max_body_bytes": 100_000},
        "too-large",
    ),
    "gzip cut off": (
        lambda _: page("", "Content-Encoding: gzip", body=gzip.compress(b"hits_total 1\n" * 99)[:-9]), {}, "bad-gzip"
    ),
    "no gzip": (lambda _: page("", "Content-Encoding: gzip", body=b"hits_total 1\n"), {}, "bad-gzip"),
    "brotli": (lambda _: page("", "Content-Encoding: br"), {}, "content-encoding"),
    "no http": (lambda _: b"SSH-2.0-OpenSSH\r\n", {}, "bad-answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_not_as_expected_is_told_by_its_tag(name: str) -> None:
    answer, settings, error = ANSWERS[name]

    async def case(shop: Shop) -> None:
        shop.answer = answer
        publisher = ListPublisher()
        await scrapes(scraper(scrape_file(shop.port), publisher), shop, 2, **settings)
        assert [(record.error, record.success) for record in results(publisher)] == [(error, error is None)] * 2

    with_shop(case)


def test_an_exporter_that_is_away_or_silent_is_told_and_loses_no_count() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        file = scrape_file(shop.port, timeout_s=0.1)
        one = scraper(file, publisher)
        exporter = one.exporter(one.discovery.targets()[0])
        usual = shop.answer
        for answer in (usual, lambda _: b"", lambda _: page("", status="500 Oh"), usual):
            shop.answer = answer
            await one.scrape(exporter)
        await exporter.fetcher.close()
        gone = one.exporter(Found(job_of(file), "http://127.0.0.1:1/metrics"))
        await one.scrape(gone)
        assert [record.error for record in results(publisher)] == [None, "timeout", "status", None, "refused"]
        one.flush()
        assert [record.total for record in counts(publisher)] == [3]

    with_shop(case)


def test_a_connection_is_kept_and_made_anew_when_the_exporter_closed_it_or_said_too_much() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        one = scraper(scrape_file(shop.port), publisher)
        exporter = one.exporter(one.discovery.targets()[0])
        usual = shop.answer

        async def seen() -> int:
            await one.scrape(exporter)
            await asyncio.sleep(0.01)
            return shop.connections

        assert [await seen(), await seen()] == [1, 1]
        shop.answer = lambda shop: page(f"hits_total {shop.hits}\n", "Connection: close")
        assert [await seen(), await seen()] == [1, 2]
        shop.answer = lambda shop: usual(shop) + b"HTTP/1.1 200 OK\r\n\r\n"  # an answer that nobody asked for
        assert [await seen(), await seen()] == [3, 4]
        shop.answer = usual
        assert [await seen(), await seen()] == [5, 5]
        await exporter.fetcher.close()
        one.flush()
        assert {record.error for record in results(publisher)} == {None}
        assert sum(record.total for record in counts(publisher)) == shop.hits - 1

    with_shop(case)


def test_a_connection_that_was_closed_while_nobody_looked_costs_no_scrape() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        one = scraper(scrape_file(shop.port), publisher)
        exporter = one.exporter(one.discovery.targets()[0])
        await one.scrape(exporter)
        line = exporter.fetcher._line
        assert line is not None
        line.is_open = True
        # The question is on its way when the end of the connection comes.
        usual, shop.answer = shop.answer, lambda _: b""
        asking = asyncio.create_task(one.scrape(exporter))
        await until(lambda: len(shop.requests) == 2)
        shop.answer = usual
        line.connection_lost(ConnectionResetError(104, "reset"))
        await asking
        await exporter.fetcher.close()
        assert [record.error for record in results(publisher)] == [None, None]
        assert shop.connections == 2

    with_shop(case)


def test_it_goes_where_probes_may_go_and_sends_secrets_from_files(tmp_path: Path) -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        one = scraper(scrape_file(shop.port), publisher)
        await one.scrape(one.exporter(Found(job_of(scrape_file(1)), "http://169.254.169.254/metrics")))
        assert results(publisher)[0].error == "forbidden-target"
        secret = tmp_path / "token"
        secret.write_text("Bearer x\n", encoding="ascii")
        secret.chmod(0o600)
        await scrapes(one, shop, 1, header_files={"authorization": secret}, headers={"X-A": "b"}, gzip=False)
        (asked,) = shop.requests
        assert b"\r\nAuthorization: Bearer x\r\n" in asked
        assert b"\r\nX-A: b\r\n" in asked
        assert b"\r\nAccept-Encoding: identity\r\n" in asked

    with_shop(case)


def test_stages_are_bounded_and_what_does_not_fit_is_not_scraped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the records: the last stage waits, then the fetchers, then the line of those that are due."""
    monkeypatch.setattr(pipeline, "FETCHERS", 2)
    monkeypatch.setattr(pipeline, "LINE", 3)
    go = asyncio.Event()

    class Full(ListPublisher):
        async def room(self, topic: str) -> None:  # noqa: ARG002 - part of the protocol
            await go.wait()

    async def case(shop: Shop) -> None:
        publisher = Full()
        urls = [f"http://127.0.0.1:{shop.port}/{number}" for number in range(20)]
        one = scraper(scrape_file(targets=urls), publisher)
        running = asyncio.create_task(one.run())
        await until(lambda: one.skipped[Skip.QUEUE_FULL])
        assert (one.pages.qsize(), one.lineup.waiting, one.lineup.running) == (3, 3, 2)
        assert shop.hits == 1 + 3 + 2
        go.set()
        await until(lambda: shop.hits >= 40)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.close()

    with_shop(case)


def test_once_scrapes_each_exporter_once() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        urls = [f"http://127.0.0.1:{shop.port}/{number}" for number in range(7)]
        await scraper(scrape_file(targets=urls), publisher).run_once()
        assert [record.success for record in results(publisher)] == [True] * 7
        assert counts(publisher) == []

    with_shop(case)


def test_targets_come_and_go_with_their_file_and_those_that_stay_keep_their_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LOOK_EVERY_S", 0.02)
    file = tmp_path / "shop.json"

    def write(*paths: str, port: int) -> None:
        group = {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": "", "rack": "r7", "__x": "y"}}
        groups = [{**group, "labels": {**group["labels"], "__metrics_path__": path}} for path in paths]  # type: ignore[dict-item]
        file.write_text(json.dumps(groups), encoding="utf-8")

    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        one = scraper(scrape_file(targets=[], target_files=[str(tmp_path / "*.json")]), publisher)
        write("/a", port=shop.port)
        running = asyncio.create_task(one.run())

        async def is_asked(path: bytes) -> None:
            shop.requests.clear()
            await until(lambda: any(request.startswith(b"GET " + path) for request in shop.requests))

        await is_asked(b"/a ")
        write("/a", "/b", port=shop.port)
        await is_asked(b"/b ")
        assert one.targets == 2
        file.write_text("[{", encoding="utf-8")
        await until(lambda: one.discovery.problems)
        assert one.targets == 2
        write("/b", port=shop.port)
        await until(lambda: one.targets == 1)
        await is_asked(b"/b ")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.close()
        assert shop.connections == 2
        assert results(publisher)[-1].labels == (Label("rack", "r7"), Label("instance", f"127.0.0.1:{shop.port}"))

    with_shop(case)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON: "),
        ("{}", ": {}; expected a list"),
        ("[3]", ": 0: 3; expected an object with targets and labels"),
        ('[{"labels": {}}]', ": 0.targets: None; expected a list"),
        ('[{"targets": [7]}]', ": 0.targets: 7; expected HOST:PORT"),
        ('[{"targets": ["a b"]}]', ": 0.targets: 'a b': expected 1 to 4096 printable ASCII characters"),
        ('[{"targets": ["h:1"], "labels": {"a": 1}}]', ": 0.labels: {'a': 1}; expected texts by name"),
    ],
)
def test_a_file_of_targets_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "targets.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(TargetFileError) as refused:
        list(read_targets(job_of(scrape_file(1)), file))
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)


def test_a_question_says_what_it_can_read() -> None:
    fetcher = Fetcher(parse_url("http://[::1]:9100/m?x=1"), job_of(scrape_file(1)), SYSTEM_RESOLVER)
    assert fetcher._head.decode().split("\r\n")[:5] == [
        "GET /m?x=1 HTTP/1.1",
        "Host: [::1]:9100",
        "User-Agent: fleetbeat",
        "Accept: text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5",
        "Accept-Encoding: gzip",
    ]
