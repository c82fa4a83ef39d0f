"""What may stand below `scrapes`, and the sentence for each mistake; and what the agent says of its scrapes."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import agents.app
import fleetbeat
from agents.app import AgentOptions, run_agent
from agents.config import AgentConfig, load_agent, whole_model
from agents.publish import Outbox
from agents.run import Prober
from agents.scrape.pipeline import Scraper
from agents.telemetry import Sources, Telemetry
from schemas.documents import DocumentError
from tests.unit.agent_fakes import ListPublisher, ManualClock
from tests.unit.scrape_fakes import NODE

WHOLE = """
scrapes:
  - name: shop
    service: checkout
    every_s: 5
    impact: P1
    labels: {team: web}
    targets: ["127.0.0.1:9100", "https://shop.example/stats"]
    target_files: ["/etc/fleetbeat/shop-*.json"]
    requests:
      - counter: http_requests_total
        bad: {code: "5.."}
        endpoint_label: handler
      - histogram: http_request_duration_seconds
        endpoint: /pay
        where: {handler: /pay}
        good: {code: "[23].."}
"""


def load(tmp_path: Path, text: str) -> AgentConfig:
    (tmp_path / "agent.yaml").write_text(text, encoding="utf-8")
    return load_agent(tmp_path / "agent.yaml")


def test_a_file_means_what_it_says(tmp_path: Path) -> None:
    (scrape,) = load(tmp_path, WHOLE).scrapes
    assert scrape.targets == ["http://127.0.0.1:9100/metrics", "https://shop.example/stats"]
    assert (scrape.every_s, scrape.timeout_s, scrape.gzip) == (5, None, True)
    counter, histogram = scrape.requests
    assert (counter.metric, counter.bad, counter.endpoint_label) == ("http_requests_total", {"code": "5.."}, "handler")
    assert (histogram.metric, histogram.unit, histogram.where) == (
        "http_request_duration_seconds",
        "s",
        {"handler": "/pay"},
    )
    assert load(tmp_path, "probes: []\n").scrapes == ()


def test_check_knows_the_file_and_its_schema_has_scrapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(WHOLE, encoding="utf-8")
    assert fleetbeat.main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good, an agent with 0 probes and 1 scrapes\n"
    assert "ScrapeFile" in whole_model().model_json_schema()["$defs"]


ONE = "scrapes:\n  - {name: a, service: s, targets: ['h:1']}\n"
MORE = ONE.replace("]}", "], requests: [{counter: n}]}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE.replace(", targets: ['h:1']", ""), ":2:5: scrapes.0: value {'name': 'a', 'service': 's'}: has nothing to"),
        (ONE.replace("h:1", "h h"), ":2:37: scrapes.0.targets.0: value 'h h': expected 1 to 4096 printable ASCII"),
        (ONE.replace("h:1", "http://u@h/"), "credentials in the URL; expected them in a file (header_files)"),
        (ONE.replace("targets", "target"), "scrapes.0.target: unknown key (value ['h:1'])"),
        (ONE.replace("s, ", "s, every_s: 2, timeout_s: 3, ", 1), "timeout_s 3; expected at most every_s, 2"),
        (MORE.replace("s, ", "s, every_s: 15, ", 1), "every_s 15; expected at most 10 where requests are counted"),
        (MORE.replace("counter: n", "counter: 9n"), "scrapes.0.requests.0.counter: value '9n': expected the name of a"),
        (MORE.replace("counter: n", "bad: {code: '5..'}"), "expected either counter or histogram"),
        (MORE.replace("counter: n", "counter: n, histogram: n"), "expected either counter or histogram"),
        (MORE.replace("counter: n", "histogram: n_bucket"), "histogram n_bucket; expected its name without _bucket"),
        (MORE.replace("n}", "n, bad: {code: '5('}}"), "scrapes.0.requests.0.bad.code: value '5(': "),
        (MORE.replace("n}", "n, bad: {1c: '5'}}"), "expected the name of a label"),
        (MORE.replace("n}", "n, bad: {c: '5'}, good: {c: '2'}}"), "has good and bad; expected one of them"),
        (ONE.replace("targets: ['h:1']", "target_files: [a.json]"), "expected a path that begins with /"),
        (ONE.replace("targets: ['h:1']", "target_files: [/a*/b.json]"), "expected * and ? in the last part"),
        (ONE.replace("s, ", "s, headers: {Authorization: x}, ", 1), "a secret in the config; expected it under"),
        (
            ONE + "probes:\n  - {name: a, service: s, tcp: {host: h, port: 1}}\n",
            ":2:6: scrapes.0.name: value 'a': expe",
        ),
        (ONE + ONE.splitlines()[1], ":3:6: scrapes.1.name: value 'a': expected each name once; line 2 has it"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        load(tmp_path, text)
    assert said in str(refused.value)


def test_the_agents_page_tells_of_scrapes(tmp_path: Path) -> None:
    async def main() -> str:
        publisher, clock = ListPublisher(), ManualClock()
        outbox = Outbox(publisher)
        text = ONE.replace("h:1", "127.0.0.1:1")
        one = Scraper(load(tmp_path, text).scrapes, NODE, outbox, clock)
        await one.run_once()

        async def report(*_: object) -> None:
            pass

        prober = Prober([], 1, 1, report, clock)
        return Telemetry(Sources(prober, publisher, "0.1.0", scraper=one)).page().decode()

    families = {family.name: family for family in text_string_to_metric_families(asyncio.run(main()))}
    assert [(one.labels, one.value) for one in families["fleetbeat_agent_scrapes"].samples] == [
        ({"outcome": "down"}, 1)
    ]
    assert families["fleetbeat_agent_scrape_failures"].samples[0].labels == {
        "failure": "transport",
        "reason": "refused",
    }
    depths = families["fleetbeat_agent_scrape_queue_depth"].samples
    assert [(one.labels["stage"], one.value) for one in depths] == [("fetch", 0), ("aggregate", 0)]
    assert families["fleetbeat_agent_scrape_duration_seconds"].type == "histogram"


def test_an_agent_that_scrapes_sends_to_request_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Kafka its results stay behind, so it says that it failed."""
    monkeypatch.setattr(agents.app, "FLUSH_S", 0.01)
    lanes: list[tuple[str, ...]] = []
    make = agents.app._lanes

    def keep(*arguments: object) -> object:
        place, made = make(*arguments)  # type: ignore[arg-type]
        lanes.append(tuple(made))
        return place, made

    monkeypatch.setattr(agents.app, "_lanes", keep)
    alone = 'metrics: {listen: null}\nspool: null\nkafka: {brokers: "127.0.0.1:1"}\n'
    for text in (alone + ONE.replace("h:1", "127.0.0.1:1"), alone):
        (tmp_path / "agent.yaml").write_text(text, encoding="utf-8")
        assert run_agent(AgentOptions(tmp_path / "agent.yaml", once=True)) == 1
    assert lanes == [("heartbeats", "probe-results", "request-counts"), ("heartbeats", "probe-results")]
