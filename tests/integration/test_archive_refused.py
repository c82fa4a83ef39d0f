"""A row that ClickHouse refuses becomes a dead letter; its neighbours are stored, and the archive goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.kafka import LocalKafka
from tests.clickhouse_server.process import ClickHouseProcess
from tests.faults.driver.archives import ArchiveProcess, FilledStore
from tests.integration.worker_process import Sender, eventually, probe_result

pytestmark = [pytest.mark.kafka, pytest.mark.long]

REFUSED = (3, 17)


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path) as running:
        yield running


@pytest.fixture
def archive(
    topics: Callable[[int], LocalKafka], clickhouse: ClickHouseProcess, tmp_path: Path
) -> Iterator[FilledStore]:
    options: list[str | Path] = ["--brokers", topics(2).bootstrap, "--group", "archive"]
    process = ArchiveProcess("archive", tmp_path, [*options, "--clickhouse", f"{clickhouse.url}/telemetry"])
    yield FilledStore("server", (process.start(),), clickhouse.sql)
    process.end()


def test_a_refused_row_is_a_dead_letter(kafka: LocalKafka, clickhouse: ClickHouseProcess, archive: FilledStore) -> None:
    (process,) = archive.archives
    process.await_ready()
    refused = ", ".join(map(str, REFUSED))
    clickhouse.command(f"ALTER TABLE telemetry.probe_results ADD CONSTRAINT few CHECK seq NOT IN ({refused})")
    sender = Sender(kafka.bootstrap)
    for seq in range(200):
        sender.send(probe_result(seq=seq))
    sender.flush()
    letters = "SELECT count() FROM telemetry.dead_letters FINAL WHERE reason = 'refused-by-store'"
    eventually(lambda: archive.number(letters) == len(REFUSED), "dead letters")
    eventually(process.is_ready, "readiness")
    rows = archive.number("SELECT count() FROM telemetry.probe_results")
    assert (rows, archive.number("SELECT uniqExact(seq) FROM telemetry.probe_results")) == (198, 198)
    (said,) = set(
        archive.sql.rows("SELECT DISTINCT topic, detail LIKE '%VIOLATED_CONSTRAINT%' FROM telemetry.dead_letters")
    )
    assert said == b"probe-results\t1"
    assert process.metric("fleetbeat_archive_lost_records_total") == 0
