"""Which exporters are scraped: targets come and go with files and configs, and those that stay go on counting."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents.clock import SystemClock
from agents.publish import Outbox
from agents.scrape import pipeline
from agents.scrape.discover import TargetFileError, read_targets
from agents.scrape.jobs import job_of
from agents.scrape.pipeline import Scraper
from schemas.records import Label
from tests.unit.agent_fakes import ListPublisher
from tests.unit.scrape_fakes import NODE, Shop, counts, results, scrape_file, scraper, until, with_shop


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
    with pytest.raises(TargetFileError) as refused:
        list(read_targets(job_of(scrape_file(1)), file))
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)
