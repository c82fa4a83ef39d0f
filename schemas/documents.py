"""YAML documents checked by pydantic: every problem with file, line, column, field, value and what was expected."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from schemas.yaml_files import DocumentError, Problem, documents, only_document, printable, read_bytes, short

__all__ = ["DocumentError", "judge", "load_document", "parse", "position", "read_all", "read_one"]

ModelT = TypeVar("ModelT", bound=BaseModel)

# The tag of a union's branch begins with this: pydantic puts it into paths, and no document has it.
UNION_TAG = "|"


# Parts of paths that pydantic makes up for the branches of a union.
_PYDANTICS = re.compile(r"\||lax-or-strict\[|function-\w+\[")
_OPENING = re.compile(r"Input should be |Input is not (?=a valid )|\w+ should have (?=at )")


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


def judge(values: Any, model: type[ModelT], name: str, document: Any) -> ModelT | list[Problem]:  # noqa: ANN401 - YAML is any structure
    """The model of the values, or all that is wrong with them; `document` is what they were made of, with positions.

    An unknown key is answered with those there are.
    """
    try:
        return model.model_validate(values)
    except ValidationError as cause:
        errors = cause.errors(include_url=False)
    # That a list has too few that are good is no news beside what is wrong with the others.
    deeper = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    told = [error for error in errors if error["type"] != "too_short" or error["loc"] not in deeper]
    return [_problem(error, model, name, document) for error in told]


def _problem(error: ErrorDetails, model: type[BaseModel], name: str, document: Any) -> Problem:  # noqa: ANN401 - YAML is any structure
    path, sentence = error["loc"], _sentence(name, document, error)
    if error["type"] == "extra_forbidden":
        known = ", ".join(_keys(model, path[:-1]))
        sentence += f"; expected {known}" if known else ""
    return Problem(*position(document, path), sentence, path)


def _keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that may stand at a path, of all models that may."""
    models = [model]
    for key in path:
        if isinstance(key, str) and not _PYDANTICS.match(key):
            fields = [info for one in models for name, info in one.model_fields.items() if (info.alias or name) == key]
            models = [below for info in fields for below in _models(info.annotation)]
    return [info.alias or name for one in models for name, info in one.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - a type of any form
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


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
    dotted = ".".join(part for part in map(str, path) if not _PYDANTICS.match(part)) or "document"
    where, key = f"{name}:{line}:{column}: {printable(dotted)}", str(path[-1]) if path else ""
    match error["type"]:
        case "missing":
            return f"{where}: missing; expected a value"
        case "extra_forbidden":
            return f"{where}: unknown key (value {short(error['input'], key)})"
        case "model_type" | "model_attributes_type":
            return f"{where}: value {short(error['input'], key)}: expected a mapping"
        case "value_error":
            return f"{where}: value {short(error['input'], key)}: {error['ctx']['error']}"
        case _:
            message = _OPENING.sub("", error["msg"])
            return f"{where}: value {short(error['input'], key)}: expected {message}"
