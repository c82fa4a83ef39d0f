"""From exporters to records: over kept connections, through bounded stages, and nothing lost when nobody takes it."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.probes.resolver import SYSTEM_RESOLVER
from agents.probes.url import parse_url
from agents.publish import COUNTS, RESULTS, Drop
from agents.schedule import Skip
from agents.scrape import pipeline
from agents.scrape.fetch import Fetcher
from agents.scrape.jobs import job_of
from agents.scrape.pipeline import Scraper
from agents.scrape.targets import Found
from schemas.records import Label
from tests.unit.agent_fakes import ListPublisher
from tests.unit.scrape_fakes import Shop, counts, page, results, scrape_file, scraper, until, with_shop


async def scrapes(one: Scraper, shop: Shop, times: int, **settings: object) -> None:
    """So many scrapes of it, one after the other."""
    exporter = one.exporter(Found(job_of(scrape_file(shop.port, **settings)), f"http://127.0.0.1:{shop.port}/metrics"))
    for _ in range(times):
        await one.scrape(exporter)
    await exporter.fetcher.close()


def test_a_running_scraper_sends_what_was_counted_and_how_each_scrape_went() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        one = scraper(scrape_file(shop.port, every_s=0.5, labels={"team": "web"}), publisher)
        running = asyncio.create_task(one.run())
        await until(lambda: shop.hits >= 5)
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
    "gzip cut off by the end of the connection": (
        lambda _: (
            b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"hits_total 1\n" * 99)[:-9]
        ),
        {},
        "bad-gzip",
    ),
    "until the end of the connection": (lambda _: b"HTTP/1.0 200 OK\r\n\r\nhits_total 1\n", {}, None),
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
        file = scrape_file(shop.port, timeout_s=0.4)
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
        one = scraper(scrape_file(targets=urls, every_s=0.2), publisher)
        running = asyncio.create_task(one.run())
        await until(lambda: (one.pages.qsize(), one.lineup.waiting, one.lineup.running) == (3, 3, 2))
        await until(lambda: one.skipped[Skip.QUEUE_FULL])
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


def test_a_question_says_what_it_can_read() -> None:
    fetcher = Fetcher(parse_url("http://[::1]:9100/m?x=1"), job_of(scrape_file(1)), SYSTEM_RESOLVER)
    assert fetcher._head.decode().split("\r\n")[:5] == [
        "GET /m?x=1 HTTP/1.1",
        "Host: [::1]:9100",
        "User-Agent: fleetbeat",
        "Accept: text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5",
        "Accept-Encoding: gzip",
    ]
