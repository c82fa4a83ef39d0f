"""The files of this room that `fleetbeat check` knows."""

from pathlib import Path

from schemas.checking import FileKind
from streams.config import load_objectives


def _objectives(path: Path) -> str:
    return f"{len(load_objectives(path))} objectives"


KINDS = (FileKind("objectives", "objectives (kind: SLO)", frozenset({"apiVersion", "kind"}), _objectives),)
