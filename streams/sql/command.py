"""`fleetbeat sql`: what the command line takes. Light to import: every --help comes by here."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

app = App(name="sql")


def _says(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


@app.default
def sql(  # noqa: PLR0913 - one argument an option
    *,
    query: Annotated[
        str | None, _says("A statement; without it, and without --name, from stdin or at a prompt.")
    ] = None,
    name: Annotated[str | None, _says("A query of the library instead.")] = None,
    param: Annotated[
        tuple[str, ...], _says("KEY=VALUE of {KEY:Type}; times also as now, -15m or 2026-03-02T10:00:00Z.")
    ] = (),
    library: Annotated[bool, _says("List the library: what each query answers, and its parameters.")] = False,
    format: Annotated[  # noqa: A002 - its name on the command line
        str | None, _says("Any of ClickHouse's; without it PrettyCompact on a terminal, else TabSeparated.")
    ] = None,
    url: Annotated[
        str | None,
        _says("http://USER:PASSWORD@HOST:PORT/DATABASE; without it FLEETBEAT_SQL, or http://127.0.0.1:8123."),
    ] = None,
) -> int:
    """Asks; what --help says about it stands where the command is registered."""
    from streams.sql.run import SqlOptions, run_sql  # noqa: PLC0415 - only when it runs

    return run_sql(SqlOptions(url, query, name, param, format, library))


@app.command
def passwd(
    name: Annotated[str, _says("The user: letters, digits and _ . @ -")],
    /,
    *,
    file: Annotated[
        Path | None, _says("The archive's --sql-users; made if it is not there. Without it the entry is printed.")
    ] = None,
) -> int:
    """Make a user of the archive's SQL address, or give one another password; it is asked for, or read from stdin.

    A running archive reads the file again when it changes.

    Example: `fleetbeat sql passwd grafana --file sql-users.yaml`
    """
    from streams.sql.passwd import run_passwd  # noqa: PLC0415 - only when it runs

    return run_passwd(name, file)
