"""`fleetbeat check`: which kinds of files there are, what a good one holds, and all that is wrong with a bad one."""

import json
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.extras import MissingPackageError
from schemas.reference import reference
from schemas.yaml_files import DocumentError, documents, read_bytes


class UnknownKindError(ValueError):
    """There is no kind of file of that name, or it has no schema of ours."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of YAML file: known by its top keys, one of which is enough; `shared` are those that other kinds have too.

    `contents` says in a few words what a good file holds, and raises DocumentError for another. `model` is the one
    definition of what may stand in it; None when that is not ours to define.
    """

    name: str
    title: str
    keys: frozenset[str]
    contents: Callable[[Path], str]
    model: Callable[[], type[BaseModel]] | None = None
    shared: frozenset[str] = frozenset()

    def fits(self, keys: AbstractSet[object]) -> int:
        """How many of these keys are of this kind; none when all of them are of others too."""
        return len(keys & (self.keys | self.shared)) if keys & self.keys else 0


# Those of one room, which is imported only when a file may be one of them.
Room = Callable[[], Sequence[FileKind]]


def check_file(file: Path, rooms: Sequence[Room]) -> str:
    """What a good file holds. Raises DocumentError with every problem of a bad one."""
    return _kind_of(file, rooms).contents(file)


def schema_of(name: str, rooms: Sequence[Room]) -> str:
    """The JSON Schema of a kind of file, for editors. Raises UnknownKindError."""
    _, model = _defined(name, rooms)
    return schema_text(model)


def reference_of(name: str, rooms: Sequence[Room]) -> str:
    """The page that lists every key of a kind of file. Raises UnknownKindError."""
    title, model = _defined(name, rooms)
    return reference(json_schema(model), title)


def schema_text(model: type[BaseModel]) -> str:
    """The schema as a file."""
    return json.dumps(json_schema(model), indent=1, ensure_ascii=False) + "\n"


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """What may stand in a file, as far as JSON Schema can say it: `fleetbeat check` knows more rules."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


def _kind_of(file: Path, rooms: Sequence[Room]) -> FileKind:
    """The kind with which the file has most keys in common, the first of several. Raises DocumentError.

    A room that cannot be loaded here may have it only when no other one has.
    """
    found = documents(read_bytes(file), file, doubled=[])
    keys = {key for document in found if isinstance(document, dict) for key in document}
    kinds: list[FileKind] = []
    missing: Exception | None = None
    for room in rooms:
        try:
            kinds += room()
        except (MissingPackageError, ModuleNotFoundError) as cause:  # a host has no packages of the stream's side
            missing = missing or cause
    best = max(kinds, key=lambda kind: kind.fits(keys), default=None)
    if best is not None and best.fits(keys):
        return best
    if missing is not None:
        raise missing
    names = [kind.title for kind in kinds]
    expected = f"{', '.join(names[:-1])} or {names[-1]}"
    raise DocumentError([f"{file}: nothing to check; expected {expected}"])


def _defined(name: str, rooms: Sequence[Room]) -> tuple[str, type[BaseModel]]:
    kinds = {kind.name: (kind.title, kind.model) for room in rooms for kind in room() if kind.model is not None}
    if name not in kinds:
        raise UnknownKindError(f"no schema {name!r}; expected one of: {', '.join(kinds)}")
    title, model = kinds[name]
    return title, model()
