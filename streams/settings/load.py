"""From the bytes of a file to its model, or to all that is wrong with it at once."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from schemas.documents import judge, position
from schemas.yaml_files import DocumentError, Problem, only_document, read_bytes

FileT = TypeVar("FileT", bound=BaseModel)
Place = tuple[str | int, ...]
# What is wrong between top keys: given those with which nothing is wrong by themselves, and the names of the others.
Contradictions = Callable[[Mapping[str, Any], Collection[str]], Iterable[tuple[Place, str]]]


@dataclass(frozen=True, slots=True)
class Kind(Generic[FileT]):
    """A kind of file."""

    model: type[FileT]
    contradictions: Contradictions


def load_file(path: Path, kind: Kind[FileT]) -> FileT:
    """Raises DocumentError with every problem."""
    return build_file(read_bytes(path), path, kind)


def build_file(content: bytes, path: Path, kind: Kind[FileT]) -> FileT:
    """What these bytes of a file say. Raises DocumentError with every problem."""
    problems: list[Problem] = []
    document = only_document(content, path, problems)
    file = judge(document, kind.model, str(path), document)
    if isinstance(file, list):
        problems += file
    if isinstance(document, Mapping):
        bad = {str(problem.path[0]) for problem in problems if problem.path}
        good = {key: value for key, value in document.items() if key not in bad}
        problems += [_problem(path, document, *one) for one in kind.contradictions(good, bad)]
    if problems or isinstance(file, list):
        raise DocumentError([problem.sentence for problem in sorted(problems)])
    return file


def _problem(path: Path, document: Mapping[str, Any], place: Place, text: str) -> Problem:
    line, column = position(document, place)
    return Problem(line, column, f"{path}:{line}:{column}: {'.'.join(map(str, place))}: {text}", place)
