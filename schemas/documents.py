"""YAML documents checked by pydantic: every problem with file, line, column, field, value and what was expected."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from schemas.yaml_files import DocumentError, documents, only_document, read_bytes

__all__ = ["DocumentError", "load_document", "parse", "position", "read_all", "read_one"]

ModelT = TypeVar("ModelT", bound=BaseModel)

_SECRET = re.compile("password|secret|token|credential", re.IGNORECASE)

# The tag of a union's branch begins with this: pydantic puts it into paths, and no document has it.
UNION_TAG = "|"


def load_document(path: Path | str, model: type[ModelT]) -> ModelT:
    """The only document of a file. Raises DocumentError."""
    return parse(read_one(path), model, str(path))


def read_one(path: Path | str) -> Any:  # noqa: ANN401 - YAML is any structure
    """The only YAML document of a file, with positions. Raises DocumentError."""
    return only_document(read_bytes(path), path)


def read_all(path: Path | str) -> list[Any]:
    """Every YAML document of a file, with positions. Raises DocumentError."""
    return documents(read_bytes(path), path)


def parse(document: Any, model: type[ModelT], name: str) -> ModelT:  # noqa: ANN401 - YAML is any structure
    """The model of a document that `read_all` gave; `name` is the file in messages. Raises DocumentError."""
    try:
        return model.model_validate(document)
    except ValidationError as cause:
        problems = [_sentence(name, document, error) for error in cause.errors(include_url=False)]
        raise DocumentError(problems) from None


def position(document: Any, path: Sequence[str | int]) -> tuple[int, int]:  # noqa: ANN401 - YAML is any structure
    """(line, column), from 1, of the deepest part of `path` that the document has."""
    line, column = (document.lc.line, document.lc.col) if hasattr(document, "lc") else (0, 0)
    for key, node in _walk(document, path):
        if key in (node.lc.data or ()):  # what a merge key (<<) brought in stands elsewhere: its parent is near enough
            line, column = node.lc.data[key][:2]
    return line + 1, column + 1


def _walk(document: Any, path: Sequence[str | int]) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - YAML is any structure
    node = document
    for key in path:
        in_list = isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node)
        if in_list or (isinstance(node, CommentedMap) and key in node):
            yield key, node
            node = node[key]
        # Anything else is a tag that pydantic puts into the path of a union: it has no place in the file.


def _sentence(name: str, document: Any, error: ErrorDetails) -> str:  # noqa: ANN401 - YAML is any structure
    path = error["loc"]
    line, column = position(document, path)
    dotted = ".".join(part for part in map(str, path) if not part.startswith(UNION_TAG)) or "document"
    where, key = f"{name}:{line}:{column}: {dotted}", str(path[-1]) if path else ""
    match error["type"]:
        case "missing":
            return f"{where}: missing; expected a value"
        case "extra_forbidden":
            return f"{where}: unknown key (value {_short(error['input'], key)})"
        case "model_type" | "model_attributes_type":
            return f"{where}: value {_short(error['input'], key)}: expected a mapping"
        case "value_error":
            return f"{where}: value {_short(error['input'], key)}: {error['ctx']['error']}"
        case _:
            message = error["msg"].removeprefix("Input should be ")
            return f"{where}: value {_short(error['input'], key)}: expected {message}"


def _without_secrets(value: Any, key: str) -> Any:  # noqa: ANN401 - whatever stood in the file
    """Messages end up in logs: what a key that sounds like a secret has is left out; names of files are not."""
    if isinstance(value, CommentedMap):
        return {name: _without_secrets(each, str(name)) for name, each in value.items()}
    return _Hidden() if _SECRET.search(key) and not key.endswith("_file") else value


class _Hidden:
    def __repr__(self) -> str:
        return "(not shown)"


def _short(value: Any, key: str) -> str:  # noqa: ANN401 - whatever stood in the file
    text = repr(_without_secrets(value, key))
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line of a terminal
