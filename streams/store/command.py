"""`fleetbeat store …`: what the command line takes. Light to import: every --help comes by here."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from schemas.extras import extra

app = App(name="store", help="Look after the archive's tables.")


def _says(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


Store = Annotated[
    Path | None, _says("Folder of an embedded store that no archive has open; without it .fleetbeat/store.")
]
Clickhouse = Annotated[
    str | None,
    _says("URL of a server instead, http://USER:PASSWORD@HOST:PORT; without --store also FLEETBEAT_CLICKHOUSE."),
]
Url = Annotated[str | None, _says("SQL address of a running archive instead, http://127.0.0.1:8123; to read.")]
From = Annotated[
    str,
    Parameter(
        name="--from",
        help="Event time to begin at: 2026-03-02T10:00:00Z, or an age such as -6h.",
        allow_leading_hyphen=True,
    ),
]
To = Annotated[str, Parameter(help="Event time to end before.", allow_leading_hyphen=True)]
Yes = Annotated[bool, _says("Do not ask.")]


@app.command
def migrate(*, store: Store = None, clickhouse: Clickhouse = None) -> int:
    """Bring the tables up to date, as every archive does when it starts; new rollups are made of what is there.

    Example: `fleetbeat store migrate --clickhouse http://user:password@ch1:8123`
    """
    with extra("archive"):
        from streams.store.places import Place
        from streams.store.tables import run_migrate
    return run_migrate(Place(store, clickhouse))


@app.command
def usage(
    *,
    store: Store = None,
    clickhouse: Clickhouse = None,
    url: Url = None,
    json: Annotated[bool, _says("One JSON document instead of a table.")] = False,
) -> int:
    """Say what each table takes: rows, bytes, bytes a row, the oldest row, and in how many days that goes.

    Example: `fleetbeat store usage --url http://127.0.0.1:8123`
    """
    with extra("archive"):
        from streams.store.places import Place
        from streams.store.tables import run_usage
    return run_usage(Place(store, clickhouse, url), as_json=json)


@app.command
def verify(  # noqa: PLR0913 - one argument an option
    *,
    from_: From = "-1d",
    to: To = "now",
    repair: Annotated[bool, _says("Make minutes and hours that differ again from raw rows. Not with --url.")] = False,
    store: Store = None,
    clickhouse: Clickhouse = None,
    url: Url = None,
) -> int:
    """Compare minutes with raw rows and hours with minutes, exactly; name minute and series where they differ.

    Exit 0 when all are equal, or were made so; 1 when not. Days of which raw rows have expired are not compared.

    Example: `fleetbeat store verify --from -6h --to now --url http://127.0.0.1:8123`
    """
    with extra("archive"):
        from streams.store.places import Place
        from streams.store.verify import run_verify
    return run_verify(Place(store, clickhouse, url), from_, to, repair=repair)


@app.command
def delete_node(
    node: Annotated[str, _says("Its id, exactly.")],
    /,
    *,
    yes: Yes = False,
    store: Store = None,
    clickhouse: Clickhouse = None,
) -> int:
    """Delete everything about one node, and make the minutes and hours again that counted it. Returns when it is done.

    Minutes of which raw rows have expired keep their counts, in which no node is named. What Kafka still holds, and
    what the node still sends, is not touched.

    Example: `fleetbeat store delete-node eu-07 --store /var/lib/fleetbeat/store`
    """
    with extra("archive"):
        from streams.store.nodes import run_delete_node
        from streams.store.places import Place
    return run_delete_node(Place(store, clickhouse), node, yes=yes)


@app.command
def backup(to: Annotated[Path, _says("A folder that does not exist yet.")], /, *, store: Store = None) -> int:
    """Copy an embedded store, with a list of what is in it. The archive has to be stopped.

    Example: `fleetbeat store backup /backup/2026-03-02 --store /var/lib/fleetbeat/store`
    """
    with extra("archive"):
        from streams.store.backup import run_backup
        from streams.store.places import Place
    return run_backup(Place(store, None), to)


@app.command
def restore(source: Annotated[Path, _says("A folder made by `backup`.")], /, *, store: Store = None) -> int:
    """Make an embedded store of a backup, and compare rows and offsets with its list. Exit 1 when they differ.

    An archive on it goes on where the backup's plans end, as far as Kafka still holds the records.

    Example: `fleetbeat store restore /backup/2026-03-02 --store /var/lib/fleetbeat/store`
    """
    with extra("archive"):
        from streams.store.backup import run_restore
        from streams.store.places import Place
    return run_restore(Place(store, None), source)


@app.command
def export(  # noqa: PLR0913 - one argument an option
    table: Annotated[str, _says("One of the archive's, such as probe_results.")],
    file: Annotated[Path, _says("The Parquet file; it must not exist yet.")],
    /,
    *,
    from_: From,
    to: To = "now",
    store: Store = None,
    clickhouse: Clickhouse = None,
    url: Url = None,
) -> int:
    """Write a range of a table as Parquet, in pieces, so that it needs little memory.

    Example: `fleetbeat store export probe_results march.parquet --from 2026-03-01 --to 2026-04-01`
    """
    with extra("archive"):
        from streams.store.export import run_export
        from streams.store.places import Place
    return run_export(Place(store, clickhouse, url), table, file, from_, to)
