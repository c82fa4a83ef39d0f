"""What is said to a cluster, pinned: `python -m tests.unit.test_cluster_ddl` writes the golden files anew."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from streams.archive import claims
from streams.archive.cluster_ddl import OnCluster, on_cluster, reads
from streams.archive.ddl import apply, migrations
from streams.archive.schema import SchemaError

GOLDEN = Path(__file__).with_name("cluster_ddl")
CLUSTER = "fleet"


class Said:
    """A client that notes what it is told; nothing was applied yet."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def command(self, cmd: str) -> str:
        self.commands.append(cmd)
        return "0"

    def query(self, _: str, **__: object) -> SimpleNamespace:
        return SimpleNamespace(result_rows=[])

    def raw_insert(self, *_: object, **__: object) -> None:
        return


def rendered() -> dict[str, str]:
    """Every golden file by name: one a migration, what the archive makes itself, and the tables to read with."""
    files = {each.file: [on_cluster(one, CLUSTER) for one in each.statements] for each in migrations()}
    files["claims.sql"] = [on_cluster(claims.CREATE, CLUSTER)]
    files["reads.sql"] = reads(CLUSTER)
    return {name: ";\n".join(said) + ";\n" for name, said in files.items()}


def test_a_cluster_is_told_what_the_golden_files_say() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}
    assert rendered() == found, "python -m tests.unit.test_cluster_ddl writes them anew"


def test_nothing_is_made_on_one_server_only() -> None:
    said = Said()
    with pytest.raises(SchemaError):  # the tables are looked at afterwards, and here nobody has made any
        apply(OnCluster(said, CLUSTER))
    made = [one for one in said.commands if one.startswith(("CREATE", "ALTER"))]
    assert len(made) > len(migrations())
    for statement in made:
        assert "ON CLUSTER 'fleet'" in statement
        assert "ENGINE" not in statement or "ENGINE = Replicated" in statement
        assert "non_replicated" not in statement


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a name as in"):
        on_cluster("CREATE DATABASE telemetry", "x' ENGINE = Memory")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, text in rendered().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
