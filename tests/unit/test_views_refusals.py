"""What the views refuse: each time in JSON, and with what was wrong and what was expected."""

import asyncio
import gzip
import io
from typing import Any

import pytest

from tests.unit.view_workers import SLOS, Group, Worker

SLICES = f"/api/v1/slos/{SLOS[0]}/slices"
SPAN = "from_ms=1000&to_ms=61000"
NINES = "9" * 5_000  # more digits than Python reads
SUBJECT = "/subjects/probe-results-value"


def _short(value: object) -> str:
    return str(value)[:60]


def ask(path: str, method: str = "GET", **more: Any) -> tuple[int, str, Any]:  # noqa: ANN401 - what aiohttp takes
    """Status, type and JSON of one worker's answer."""

    async def run() -> tuple[int, str, Any]:
        worker = Worker(range(4))
        async with (
            Group(worker) as group,
            group._session.request(method, f"http://{worker.address}{path}", **more) as answer,
        ):
            return answer.status, answer.content_type, await answer.json()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"{SLICES}?{SPAN}&step_ms=5", 400, "step_ms: not a parameter; expected from_ms, to_ms"),
        (f"{SLICES}?{SPAN}&to_ms=9", 400, "parameters ['from_ms', 'to_ms']; expected each once"),
        (f"{SLICES}?from_ms=1000", 400, "to_ms: value ''; expected milliseconds since 1970, UTC"),
        (f"{SLICES}?from_ms=%D9%A1&to_ms=9", 400, "from_ms: value '\u0661'; expected milliseconds since 1970, UTC"),
        (f"{SLICES}?from_ms={NINES}&to_ms=9", 400, f"from_ms: value '{NINES[:100]}'; expected milliseconds since 1970"),
        ("/api/v1/slos?limit=5", 400, "limit: not a parameter; expected none"),
        (f"/api/v1/slos/{SLOS[0]}?window=60", 400, "window: not a parameter; expected none"),
        ("/api/v1/fleet?zone=x", 400, "zone: not a parameter; expected none"),
        ("/api/v1/nodes/n1?state=UP", 400, "state: not a parameter; expected none"),
        (f"/api/v1/slos/{'x' * 5_000}", 404, f"no objective '{'x' * 100}'; expected one of ["),
        ("/api/v1/", 404, "no path '/api/v1/'; expected one of those that / lists"),
    ],
    ids=_short,
)
def test_a_question_that_means_nothing_is_refused(path: str, status: int, said: str) -> None:
    told, content_type, answer = ask(path)
    assert (told, content_type) == (status, "application/json")
    assert answer["error"].startswith(said)


def test_another_method_is_refused_with_those_there_are() -> None:
    told, content_type, answer = ask("/api/v1/slos", "DELETE")
    assert (told, content_type) == (405, "application/json")
    assert answer == {"error": "method DELETE of '/api/v1/slos'; expected GET, HEAD"}


@pytest.mark.parametrize(
    ("path", "method", "more", "code", "said"),
    [
        (f"/schemas/ids/{NINES}", "GET", {}, 40403, f"schema id '{NINES[:100]}' not found; expected one of [1, "),
        (f"{SUBJECT}/versions/{NINES}", "GET", {}, 42202, f"version '{NINES[:100]}'; expected a whole number from 1"),
        (f"/config/{'x' * 5_000}", "GET", {}, 40401, f"subject '{'x' * 100}' not found; expected one of ["),
        ("/mode", "GET", {}, 404, "no path '/mode'; expected one of those that / lists"),
        (SUBJECT, "DELETE", {}, 405, f"method DELETE of '{SUBJECT}'; expected POST"),
        (
            SUBJECT,
            "POST",
            {"data": b"{}", "headers": {"Content-Type": "application/json; charset=none"}},
            400,
            "the body is not JSON: unknown encoding: none",
        ),
        (SUBJECT, "POST", {"data": b"{}", "headers": {"Content-Encoding": "gzip"}}, 400, "the body is not JSON: 400"),
        (SUBJECT, "POST", {"data": io.BytesIO(b" " * (2 << 20))}, 413, "Maximum request body size 1048576 exceeded"),
        (SUBJECT, "POST", {"data": gzip.compress(b"[" * 5_000), "headers": {"Content-Encoding": "gzip"}}, 400, "the"),
    ],
    ids=["long id", "long version", "long subject", "no path", "method", "charset", "no gzip", "large", "deep"],
)
def test_a_client_of_the_registry_is_refused_in_its_words(
    path: str, method: str, more: dict[str, Any], code: int, said: str
) -> None:
    told, content_type, answer = ask(path, method, **more)
    assert (told, content_type) == (int(str(code)[:3]), "application/vnd.schemaregistry.v1+json")
    assert answer["error_code"] == code
    assert answer["message"].startswith(said)
