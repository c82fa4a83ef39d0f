"""Makes keys of nodes and, when asked, the master that they are made of; each file is its owner's alone."""

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from infra import InfraError
from schemas.signatures import MAX_KEY_ID, node_key
from schemas.signing_files import MAX_NODE_BYTES, NodeKey, read_master

_MASTER_BYTES = 32
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class EnrollError(InfraError, ValueError):
    """What was asked for cannot be meant, or would overwrite something."""


@dataclass(frozen=True, slots=True)
class EnrollOptions:
    """What `fleetbeat enroll` was asked for."""

    nodes: tuple[str, ...]
    master_file: Path
    key_id: int
    out: Path | None
    nodes_file: Path | None
    new_master: bool


def run_enroll(options: EnrollOptions) -> int:
    """Writes the files and says how they are used; the exit status. Raises EnrollError, SecretFileError."""
    if not 0 <= options.key_id <= MAX_KEY_ID:
        raise EnrollError(f"--key-id: value {options.key_id}; expected 0 to {MAX_KEY_ID}")
    nodes = _nodes(options)
    if nodes and options.out is None:
        raise EnrollError(f"--out: missing; expected a folder for the keys of {len(nodes)} nodes")
    if not nodes and not options.new_master:
        raise EnrollError("no nodes; expected their ids, --nodes-file, or --new-master")
    if options.new_master:
        _write_new(options.master_file, secrets.token_hex(_MASTER_BYTES) + "\n")
        print(f"{options.master_file}: a new master, key id {options.key_id}. Workers need it, hosts must not have it.")
    if options.out is None:
        return 0
    master = read_master(options.master_file, "--master-file")
    try:
        options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as cause:
        raise EnrollError(f"--out {options.out}: {_why(cause)}") from cause
    for node in nodes:
        _write(options.out / file_name(node), NodeKey(node, options.key_id, node_key(master, node)).text())
    print(
        f"{options.out}: {len(nodes)} keys, key id {options.key_id}.\n"
        "Bring each to its host, as a file that the agent alone can read, and name it in the agent's config:\n"
        "  node: {id: NODE, key_file: /etc/fleetbeat/node.key}"
    )
    return 0


def file_name(node: str) -> str:
    """The node's id where that is a plain name; else what of it is, and a part of its hash."""
    if _PLAIN.fullmatch(node):
        return f"{node}.key"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", node).lstrip(".")[:60]
    return f"{plain}.{sha256(node.encode()).hexdigest()[:16]}.key"


def _nodes(options: EnrollOptions) -> list[str]:
    nodes = list(options.nodes)
    if options.nodes_file is not None:
        try:
            lines = map(str.strip, options.nodes_file.read_text(encoding="utf-8").splitlines())
            nodes += [line for line in lines if line and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as cause:
            raise EnrollError(f"--nodes-file {options.nodes_file}: {_why(cause)}") from cause
    _require_ids(nodes)
    return list(dict.fromkeys(nodes))


def _require_ids(nodes: Iterable[str]) -> None:
    for node in nodes:
        size = len(node.encode(errors="replace"))
        if not 1 <= size <= MAX_NODE_BYTES or not node.isprintable():
            raise EnrollError(f"node {node[:80]!r}: {size} bytes; expected 1 to {MAX_NODE_BYTES} of printable text")


def _write_new(path: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as cause:
        raise EnrollError(f"--master-file {path}: is there already; expected a new file with --new-master") from cause
    except OSError as cause:
        raise EnrollError(f"--master-file {path}: {_why(cause)}") from cause


def _write(path: Path, text: str) -> None:
    """In place of what is there: a key is the same whenever it is made."""
    unfinished = path.with_name(f".{path.name}.new")
    try:
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
    except OSError as cause:
        raise EnrollError(f"--out {path}: {_why(cause)}") from cause


def _why(cause: OSError | UnicodeDecodeError) -> str:
    return (cause.strerror or str(cause)).lower() if isinstance(cause, OSError) else "not UTF-8"
