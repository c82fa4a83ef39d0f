"""Counters of a real exporter reach the worker's objectives exactly, over an agent and Kafka."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from schemas.records import ProbeResult, RequestCount
from tests.conftest import MakeTopics
from tests.integration.agent_process import AgentProcess, records
from tests.integration.worker_process import WorkerProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.long]

PARTITIONS = 2
SCRAPES = """
heartbeat: {interval_s: 0.5}
scrapes:
  - name: shop
    service: shop
    every_s: 0.5
    targets: ["127.0.0.1:%SHOP%"]
    requests:
      - histogram: http_request_duration_seconds
        endpoint: /pay
        bad: {code: "5.."}
"""
OBJECTIVES = "".join(
    f"""
---
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {name}}}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good: {{metricSource: {{type: fleetbeat, spec: {{source: request-counts, where: {{service: shop}}{limit}}}}}}}
        total: {{metricSource: {{type: fleetbeat, spec: {{source: request-counts, where: {{service: shop}}}}}}}}
  timeWindow: [{{duration: 7d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: 0.9}}]
"""
    for name, limit in (("succeed", ""), ("fast", ", latency_us_le: 101227"))
)


class Shop:
    """A service with Prometheus' own client library; its page counts how often it was read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.latency = Histogram("http_request_duration_seconds", "Of requests.", ["code"], registry=self.registry)
        self.pages = 0

    def serve(self, code: str, seconds: float, times: int) -> None:
        for _ in range(times):
            self.latency.labels(code).observe(seconds)


@contextmanager
def exporting(shop: Shop) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = generate_latest(shop.registry)
            shop.pages += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_what_an_exporter_counted_is_what_the_objectives_say(topics: MakeTopics, tmp_path: Path) -> None:
    brokers = topics(PARTITIONS).bootstrap
    objectives = tmp_path / "slos.yaml"
    objectives.write_text(OBJECTIVES, encoding="utf-8")
    shop = Shop()
    shop.serve("200", 0.05, 1_000)  # before anybody looked
    with (
        exporting(shop) as port,
        WorkerProcess(brokers, tmp_path, objectives) as worker,
        AgentProcess(tmp_path, brokers, SCRAPES.replace("%SHOP%", str(port))) as agent,
    ):
        worker.start().await_ready()
        agent.start().await_ready()
        eventually(lambda: shop.pages, "first page")
        agent.await_metric("fleetbeat_agent_scrapes_total", 1, outcome="up")
        total = good = fast = 0
        for times in (1, 7, 40):
            shop.serve("200", 0.1, times)
            shop.serve("200", 0.3, 2 * times)
            shop.serve("503", 0.02, times)
            total, good, fast = total + 4 * times, good + 3 * times, fast + times
            seen = shop.pages
            eventually(lambda seen=seen: shop.pages > seen, "next page")  # type: ignore[misc]

        def counted(slo: str) -> tuple[int, int] | None:
            status, answer = worker.get(f"/api/v1/slos/{slo}")
            window: dict[str, Any] = answer["windows"][-1] if status == 200 else {"total": 0}
            return (window["total"], window["good"]) if window["total"] >= total else None

        assert eventually(lambda: counted("succeed"), "all requests") == (total, good)
        assert eventually(lambda: counted("fast"), "all requests") == (total, fast)
        assert agent.stop() == 0
    results = records(brokers, "probe-results", ProbeResult)
    assert {(one.kind, one.success, one.error) for one in results} == {("scrape", True, None)}
    counts = records(brokers, "request-counts", RequestCount)
    assert sum(one.total for one in counts) == total
    assert sum(one.sum_us for one in counts) == pytest.approx((fast * 0.1 + 2 * fast * 0.3 + fast * 0.02) * 1e6, abs=50)
