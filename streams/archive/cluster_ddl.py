"""The same migrations for a cluster: every statement on all its servers, replicated engines, tables to read all shards.

Never run on a real cluster: see docs/archive.md.
"""

import re
from typing import Any

from streams.archive.ddl import DATABASE, migrations

KEPT_TOKENS_S = 7 * 86_400
"""How long a replicated table remembers tokens; by default it forgets them after an hour."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DDL = re.compile(
    r"(?P<what>CREATE DATABASE|CREATE TABLE|CREATE MATERIALIZED VIEW|ALTER TABLE)(?P<maybe> IF NOT EXISTS)? "
    r"(?P<name>[\w.]+)(?P<rest>.*)",
    re.DOTALL,
)
_ENGINE = re.compile(r"\bENGINE = (?P<kind>\w*MergeTree)(?:\((?P<arguments>[^)]*)\))?")
_WINDOW = re.compile(r"\bnon_replicated_deduplication_window = (\d+)")
# Named by the cluster's own macros, so that every server makes the same path of it.
_PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"


def check_name(cluster: str) -> None:
    """Raises ValueError for what cannot be the name of a cluster."""
    if not _NAME.fullmatch(cluster):
        raise ValueError(f"--cluster {cluster!r}: expected a name as in system.clusters")


def on_cluster(statement: str, cluster: str) -> str:
    """The statement as it is said to a cluster; anything but DDL is left as it is. Raises ValueError."""
    check_name(cluster)
    found = _DDL.fullmatch(statement)
    if found is None:
        return statement
    rest = _ENGINE.sub(_replicated, found["rest"])
    rest = _WINDOW.sub(
        rf"replicated_deduplication_window = \1, replicated_deduplication_window_seconds = {KEPT_TOKENS_S}", rest
    )
    return f"{found['what']}{found['maybe'] or ''} {found['name']} ON CLUSTER '{cluster}'{rest}"


def reads(cluster: str) -> list[str]:
    """For each table of the migrations one named `…_all`, which reads it on every shard; made anew at each start."""
    statements = [statement for migration in migrations() for statement in migration.statements]
    made = [found for found in map(_DDL.fullmatch, statements) if found and found["what"] == "CREATE TABLE"]
    return [
        f"CREATE OR REPLACE TABLE {table['name']}_all ON CLUSTER '{cluster}' AS {table['name']} "
        f"ENGINE = Distributed('{cluster}', '{DATABASE}', '{table['name'].partition('.')[2]}')"
        for table in made
    ]


class OnCluster:
    """A client that says every statement of a command to a whole cluster."""

    def __init__(self, client: Any, cluster: str) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
        self._client = client
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self._client, name)

    def command(self, cmd: str) -> Any:  # noqa: ANN401 - as above
        """Runs a statement; returns its only value."""
        return self._client.command(on_cluster(cmd, self._cluster))


def _replicated(found: re.Match[str]) -> str:
    arguments = f", {found['arguments']}" if found["arguments"] else ""
    return f"ENGINE = Replicated{found['kind']}({_PATH}{arguments})"
