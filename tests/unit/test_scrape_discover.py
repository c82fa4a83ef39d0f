"""Which exporters are scraped: targets come and go with files and configs, and those that stay go on counting."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agents.clock import SystemClock
from agents.publish import Outbox
from agents.scrape import pipeline, urls
from agents.scrape.jobs import job_of
from agents.scrape.metrics import families
from agents.scrape.pipeline import Scraper
from agents.scrape.settings import ScrapeFile
from agents.scrape.targets import TargetsError, read_targets
from schemas.records import Label
from tests.unit.agent_fakes import ListPublisher, ManualClock
from tests.unit.scrape_fakes import (
    NODE,
    Shop,
    counts,
    page,
    results,
    scrape_file,
    scraper,
    serving,
    until,
    with_shop,
)


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
        one = scraper(scrape_file(every_s=0.2, targets=[], target_files=[str(tmp_path / "*.json")]), publisher)
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


def test_another_config_takes_effect_at_once_and_what_is_unchanged_goes_on_counting() -> None:
    async def case(shop: Shop) -> None:
        publisher = ListPublisher()
        kept, other = scrape_file(shop.port, every_s=0.2), scrape_file(shop.port, every_s=0.2, name="other")
        one = Scraper([kept, other], NODE, Outbox(publisher), SystemClock())
        running = asyncio.create_task(one.run())
        await until(lambda: len(results(publisher)) > 4)
        again = scrape_file(shop.port, every_s=0.2, name="again")
        one.change([scrape_file(shop.port, every_s=0.2), again], replace(NODE, region="eu-2"))
        await until(lambda: len({record.probe for record in results(publisher) if record.region == "eu-2"}) > 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.close()
        one.flush()
        assert {record.probe for record in results(publisher) if record.region == "eu-2"} == {"shop", "again"}
        assert not any(record.probe == "other" for record in results(publisher) if record.region == "eu-2")
        # The one that was there before the change, and its connection, are there still.
        assert shop.connections == 3
        assert {record.endpoint for record in counts(publisher)} >= {"shop"}

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
    with pytest.raises(TargetsError) as refused:
        list(read_targets(job_of(scrape_file(1)), file))
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)


class Inventory(Shop):
    """An exporter that also names exporters, at /targets."""

    def __init__(self) -> None:
        super().__init__(answer=lambda _: self.of_both())
        self.says: bytes = b""

    def names(self, *paths: str, **labels: str) -> None:
        port = self.port
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": path, **labels}} for path in paths]
        self.says = page(json.dumps(groups))

    def of_both(self) -> bytes:
        return self.says if b" /targets " in self.requests[-1] else page(f"hits_total {self.hits}\n")

    def asked(self, path: bytes) -> int:
        return sum(request.startswith(b"GET " + path + b" ") for request in self.requests)


def with_inventory(case: Callable[[Inventory], Awaitable[None]]) -> None:
    async def main() -> None:
        inventory = Inventory()
        async with serving(inventory):
            await case(inventory)

    asyncio.run(main())


def found_by_url(inventory: Inventory, **settings: object) -> ScrapeFile:
    http_sd = {"url": f"http://127.0.0.1:{inventory.port}/targets", "refresh_s": 1, **settings}
    return scrape_file(every_s=0.2, http_sd=http_sd)


async def ended(running: "asyncio.Task[None]", one: Scraper) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await one.close()


def test_a_url_names_exporters_and_while_it_gives_no_good_answer_they_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(urls, "MAX_FILE_BYTES", 2_048)
    monkeypatch.setattr(urls, "MAX_TARGETS", 3)
    token = tmp_path / "token"
    token.write_text("c0ffee", encoding="utf-8")
    token.chmod(0o600)

    async def case(inventory: Inventory) -> None:
        clock, publisher = ManualClock(), ListPublisher()
        inventory.names("/a", "/b", rack="r7")
        file = found_by_url(inventory, bearer_file=str(token), timeout_s=0.5)
        one = Scraper([file], NODE, Outbox(publisher), clock)
        running = asyncio.create_task(one.run())
        await until(lambda: one.targets == 2)
        assert b"\r\nAuthorization: Bearer c0ffee\r\n" in inventory.requests[0]
        for bad, why in {
            page("[]", status="503 Busy"): "status 503; expected 200",
            page("{}"): "the answer: groups: {}; expected a list",
            page('[{"targets": ["ftp://a/"]}]'): "the answer: groups: 0.targets: 'ftp://a/': scheme 'ftp'",
            page(json.dumps([{"targets": list("abcd")}])): "the answer: 4 targets; expected at most 3",
            page("[" + " " * 3_000 + "]"): "more than 2048 bytes",
            page("[]", "Location: http://169.254.169.254/", status="302 Found"): "link-local",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[": "no answer within 0.5 s",
        }.items():
            inventory.says = bad
            while not any(why in vars(record).get("reason", "") for record in caplog.records):
                await clock.advance(1)
                await asyncio.sleep(0.01)
            assert one.targets == 2
        inventory.names("/b", "/c", rack="r7")
        while not inventory.asked(b"/c"):
            await clock.advance(1)
            await asyncio.sleep(0.01)
        assert one.targets == 2
        await until(lambda: results(publisher))
        assert results(publisher)[-1].labels[0] == Label("rack", "r7")
        inventory.names()
        while one.targets:  # an empty list is an answer
            await clock.advance(1)
            await asyncio.sleep(0.01)
        await ended(running, one)
        told = {sample.name: sample.value for family in families(one) for sample in family.samples}
        assert told["fleetbeat_agent_scrape_target_failures_total"] == one.urls.failures >= 7
        assert told["fleetbeat_agent_scrape_target_refreshes_total"] == one.urls.asked > 9

    with_inventory(case)


def test_a_config_that_asks_the_same_url_keeps_what_it_said_and_another_one_asks_anew() -> None:
    async def case(inventory: Inventory) -> None:
        inventory.names("/a")
        file = found_by_url(inventory)
        one = scraper(file, ListPublisher())
        running = asyncio.create_task(one.run())
        await until(lambda: one.targets == 1)
        inventory.says = page("", status="503 Busy")
        one.change([file.model_copy(update={"service": "again"})], NODE)
        await until(lambda: one.urls.failures == 1)
        assert one.targets == 1
        one.change([found_by_url(inventory, refresh_s=2)], NODE)
        assert one.targets == 0
        inventory.names("/a", "/b")
        one.change([found_by_url(inventory, refresh_s=3)], NODE)
        await until(lambda: one.targets == 2)
        one.change([], NODE)
        assert one.targets == 0
        asked = one.urls.asked
        await asyncio.sleep(0.05)
        await ended(running, one)
        assert one.urls.asked == asked

    with_inventory(case)


def test_targets_of_all_three_ways_are_scraped_once_each_also_when_the_agent_scrapes_only_once(tmp_path: Path) -> None:
    async def case(inventory: Inventory) -> None:
        inventory.names("/listed", "/in-file", "/named")
        file = tmp_path / "more.json"
        group = {"targets": [f"127.0.0.1:{inventory.port}"], "labels": {"__metrics_path__": "/in-file"}}
        file.write_text(json.dumps([group]), encoding="utf-8")
        listed = f"http://127.0.0.1:{inventory.port}/listed"
        settings = found_by_url(inventory).model_copy(update={"targets": [listed], "target_files": [str(file)]})
        await scraper(settings, ListPublisher()).run_once()
        assert [inventory.asked(path) for path in (b"/targets", b"/listed", b"/in-file", b"/named")] == [1, 1, 1, 1]

    with_inventory(case)
