"""What the oracle makes of the answers of views and SQL, given by a server of a few lines."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from infra.oracle.guest import joined, results_of
from infra.oracle.sources import Counts, NodeView, Sql, StateRow, UnavailableError, Views, quoted
from infra.oracle.watch import Watch, look


class Answers(ThreadingHTTPServer):
    """Answers by path, or by the body of a POST; any other question is a 404 with a reason."""

    answers: dict[str, bytes]
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self._answer(self.path)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, question: str) -> None:
        self.server.asked.append(question)
        body = self.server.answers.get(question)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(b"no such thing" if body is None else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Handler) as answers:
        answers.answers, answers.asked = {}, []
        thread = threading.Thread(target=answers.serve_forever)
        thread.start()
        yield answers
        answers.shutdown()
        thread.join()


def views(server: Answers, answers: dict[str, Any]) -> Views:
    server.answers = {path: json.dumps(answer).encode() for path, answer in answers.items()}
    return Views(f"http://127.0.0.1:{server.server_port}")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def node(node_id: str, state: str = "DOWN") -> dict[str, Any]:
    return {"node_id": node_id, "state": state, "heartbeats": 3, "lost": 0, "restarts": 1, "region": "eu-1"}


def test_nodes_are_read_page_by_page(server: Answers) -> None:
    first = "/api/v1/nodes?limit=1000"
    pages = {
        first: {"nodes": [node("a"), node("b")], "next": "b"},
        f"{first}&after=b": {"nodes": [node("c")], "next": None},
    }
    found = list(views(server, pages).nodes())
    assert found == [NodeView(name, "DOWN", Counts(3, 0, 1)) for name in "abc"]
    assert server.asked == list(pages)


def test_nodes_in_a_state_are_as_old_as_the_oldest_page(server: Answers) -> None:
    first = "/api/v1/nodes?limit=1000&state=DOWN"
    pages = {
        first: {"nodes": [node("a")], "next": "a", "complete_to_ms": 500},
        f"{first}&after=a": {"nodes": [], "next": None, "complete_to_ms": 700},
    }
    ids, complete_to_ms = views(server, pages).nodes_in("DOWN")
    assert (set(ids), complete_to_ms) == ({"a"}, 500)


def test_a_look_has_nodes_that_are_down_or_gone_and_zones_that_are_lost(server: Answers) -> None:
    zone = {"region": "eu-1", "zone": "eu-1b", "since_ms": 7}
    found = look(
        views(
            server,
            {
                "/api/v1/nodes?limit=1000&state=DOWN": {"nodes": [node("a")], "next": None, "complete_to_ms": 9},
                "/api/v1/nodes?limit=1000&state=GONE": {
                    "nodes": [node("b", "GONE")],
                    "next": None,
                    "complete_to_ms": 8,
                },
                "/api/v1/fleet": {"outages": [zone], "totals": {}},
            },
        )
    )
    assert (set(found.down), set(found.gone), set(found.outages)) == ({"a"}, {"b"}, {("eu-1", "eu-1b")})
    assert found.begun_ms <= found.ended_ms
    assert found.complete_to_ms == 8
    assert found.shows("a", gone=False)
    assert not found.shows("a", gone=True)


def test_a_view_that_does_not_answer_is_a_look_that_failed(server: Answers) -> None:
    there = views(server, {})
    with pytest.raises(UnavailableError, match="404: no such thing"):
        look(there)
    with Watch(there.base_url) as watch:
        until(lambda: watch.failed > 0)
    assert watch.looks == ()


def test_an_answer_that_cannot_be_read_is_not_passed_over(server: Answers) -> None:
    there = views(server, {"/api/v1/nodes?limit=1000&state=DOWN": {"surprise": 1}})
    with pytest.raises(KeyError, match="next"), Watch(there.base_url):
        until(lambda: bool(server.asked))


def test_states_and_results_are_read_from_sql(server: Answers) -> None:
    states = (
        "SELECT subject, kind, state, region, zone, toUnixTimestamp64Milli(last_seen), "
        "toUnixTimestamp64Milli(received_at) FROM telemetry.node_states FINAL FORMAT TabSeparated"
    )
    results = (
        "SELECT toUnixTimestamp64Milli(ts), latency_us, toUInt8(success), service, endpoint, region, kind "
        "FROM telemetry.probe_results WHERE node_id = 'local-me' FORMAT TabSeparated"
    )
    server.answers = {
        states: b"n1\tNODE\tDOWN\teu-1\teu-1a\t5\t9\n",
        results: b"1000\t20\t1\tworker\t/\tlocal\thttp\n2000\t30\t0\tkafka\t/\tlocal\ttcp\n",
    }
    sql = Sql(f"http://127.0.0.1:{server.server_port}")
    assert sql.node_states() == [StateRow("n1", "NODE", "DOWN", ("eu-1", "eu-1a"), 5, 9)]
    found = results_of(sql, "local-me")
    assert (found.ts.tolist(), found.latency_us.tolist(), found.success.tolist()) == (
        [1000, 2000],
        [20, 30],
        [True, False],
    )
    assert found.name("kind").equal("tcp").tolist() == [False, True]
    twice = joined(found, found)
    assert twice.ts.tolist() == [1000, 2000, 1000, 2000]
    assert twice.name("service").equal("kafka").tolist() == [False, True, False, True]
    server.answers = {results: b""}
    assert results_of(sql, "local-me").ts.size == 0


def test_a_text_in_sql_ends_where_it_should() -> None:
    assert quoted(r"it's a \ name") == r"'it\'s a \\ name'"
