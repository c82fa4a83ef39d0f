"""The secrets of signing as files: a master of the fleet, and the key of one node."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from schemas.secret_files import SecretFileError, read_secret
from schemas.signatures import KEY_BYTES, MAX_KEY_ID

MIN_MASTER_BYTES = 32
MAX_NODE_BYTES = 255


@dataclass(frozen=True, slots=True)
class NodeKey:
    """What `fleetbeat enroll` gives to a node."""

    node: str
    key_id: int
    key: bytes = field(repr=False)

    def text(self) -> str:
        """As one line."""
        return json.dumps({"node": self.node, "key_id": self.key_id, "key": self.key.hex()}, ensure_ascii=False) + "\n"


def read_master(path: Path, name: str) -> bytes:
    """The secret in a file of one line; `name` is the setting, for messages. Raises SecretFileError."""
    secret = read_secret(path, name).encode()
    if len(secret) < MIN_MASTER_BYTES:
        raise SecretFileError(
            f"{name} {path}: {len(secret)} bytes; expected at least {MIN_MASTER_BYTES}, "
            "as `fleetbeat enroll --new-master` makes it"
        )
    return secret


def read_node_key(path: Path, name: str, node_id: str) -> NodeKey:
    """The key in a file, which has to be that of the node. Raises SecretFileError."""
    expected = "expected a file that `fleetbeat enroll` has made"
    text = read_secret(path, name)
    try:
        said = json.loads(text)
        found = NodeKey(str(said["node"]), int(said["key_id"]), bytes.fromhex(said["key"]))
    except (ValueError, TypeError, KeyError):
        raise SecretFileError(f"{name} {path}: no key of a node; {expected}") from None
    if len(found.key) != KEY_BYTES or not 0 <= found.key_id <= MAX_KEY_ID:
        raise SecretFileError(f"{name} {path}: key id {found.key_id}, a key of {len(found.key)} bytes; {expected}")
    if found.node != node_id:
        raise SecretFileError(f"{name} {path}: the key of {found.node!r}; expected that of this node, {node_id!r}")
    return found
