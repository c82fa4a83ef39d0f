"""The SQL endpoint asked by clickhouse-go (in Grafana's plugin) and clickhouse-jdbc (in DBeaver)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clients.build import go_client, java_client
from tests.integration.sql_gateway_client import Server

pytestmark = pytest.mark.slow

A_MILLION = "1000000 499999500000"  # rows, and the sum of their numbers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clients"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def found(server: Server) -> dict[str, dict[str, str]]:
    """What both found; they are built and run at the same time."""
    with ThreadPoolExecutor(2) as pool:
        go, java = pool.submit(go_client), pool.submit(java_client)
        return {"go": go.result().ask(server.address), "java": java.result().ask(server.address)}


@pytest.mark.parametrize("client", ["go", "java"])
class TestClient:
    def test_parameters(self, found: dict[str, dict[str, str]], client: str) -> None:
        assert found[client]["parameters"] == "5000 it's \\ é"

    def test_types(self, found: dict[str, dict[str, str]], client: str) -> None:
        said = {"go": "map[k:1]", "java": "{k=1}"}
        assert found[client]["types"] == f"2026-01-01T00:00:01Z h1 1 1 {said[client]}"

    def test_a_large_result_comes_whole_plain_and_compressed(
        self, found: dict[str, dict[str, str]], client: str
    ) -> None:
        for way in ("streamed", "lz4", "gzip" if client == "go" else "encoded"):
            assert found[client][way] == A_MILLION, way

    def test_an_error_has_its_code(self, found: dict[str, dict[str, str]], client: str) -> None:
        assert {text for name, text in found[client].items() if name.endswith("error")} == {"60"}

    def test_writes_and_files_are_refused(self, found: dict[str, dict[str, str]], client: str, server: Server) -> None:
        for way in ("refused", "batch" if client == "go" else "dropped"):
            assert found[client][way] == "164", way
        assert found[client]["file"] == "497"
        assert server.ask("SELECT count() FROM samples").text == "50000\n"


def test_jdbc_lists_the_tables(found: dict[str, dict[str, str]]) -> None:
    assert found["java"]["tables"] == "true"
