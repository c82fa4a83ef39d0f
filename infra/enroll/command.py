"""`fleetbeat enroll`: what the command line takes. Light to import: every --help comes by here."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def _says(text: str) -> Parameter:
    return Parameter(help=text, negative=(), show_default=False)


def enroll(
    *nodes: Annotated[str, _says("Ids of nodes, as their records have them.")],
    master_file: Annotated[Path, _says("The master secret that workers have too; only its owner may read it.")],
    key_id: Annotated[int, _says("The master's id in the workers' file of keys; without it 1.")] = 1,
    out: Annotated[Path | None, _says("Folder for the keys, one file a node, which only the owner may read.")] = None,
    nodes_file: Annotated[Path | None, _says("More ids, one a line; lines that begin with # are comments.")] = None,
    new_master: Annotated[bool, _says("Make the master first; refused when the file is there.")] = False,
) -> int:
    """Sends nothing to anyone and needs nothing else; what --help says stands where the command is registered."""
    from infra.enroll.run import EnrollOptions, run_enroll

    return run_enroll(EnrollOptions(nodes, master_file, key_id, out, nodes_file, new_master))
