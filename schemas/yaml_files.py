"""YAML files as documents that know their places; what cannot be one is refused in one sentence, whatever it is."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

# Whole fleets of targets fit; what is larger is not a config, and takes minutes to read.
MAX_FILE_BYTES = 16 * 1024 * 1024
# With aliases a short file can be a long document: each is walked as if it were written out.
MAX_VALUES = 1_000_000
VERSION_DIGITS = 12


_SECRET = re.compile("password|secret|token|credential", re.IGNORECASE)
_LOGIN = re.compile(r"://[^/@'\"\s]*@")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something that is wrong at a place of a file, counted from 1; `sentence` is all of it, the file and place too."""

    line: int
    column: int
    sentence: str
    path: tuple[str | int, ...] = field(default=(), compare=False)


class DocumentError(ValueError):
    """A file cannot be used; `problems` are full sentences, one each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def read_bytes(path: Path | str) -> bytes:
    """What is in a file. Raises DocumentError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise DocumentError([f"{path}: no such file; expected a YAML file"]) from None
    except OSError as cause:
        why = (cause.strerror or str(cause)).lower()
        raise DocumentError([f"{path}: cannot be read: {why}; expected a YAML file"]) from cause
    if len(content) > MAX_FILE_BYTES:
        raise DocumentError([f"{path}: larger than {MAX_FILE_BYTES} bytes; expected a YAML file of at most that"])
    return content


def config_version(content: bytes) -> str:
    """Names the file that a process runs by: `sha256sum FILE` begins with it."""
    return hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]


def documents(content: bytes, path: Path | str, doubled: list[Problem] | None = None) -> list[Any]:
    """Every document in a file's bytes, with positions. Raises DocumentError.

    With `doubled`, keys that a mapping has twice are told there, and the first of each counts.
    """
    text = _text(content, path)
    yaml, told = YAML(typ="rt", pure=True), _Doubled(path)
    yaml.Constructor = told.constructor()
    try:
        found = [document for document in yaml.load_all(text) if document is not None]
    except MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise DocumentError([f"{path}{where}: not YAML: {printable(str(cause.problem))}"]) from cause
    except ReaderError as cause:
        where, code = _where(text[: cause.position]), cause.character
        why = f"not YAML: character U+{code:04X}; expected text without control characters"
        raise DocumentError([f"{path}:{where}: {why}"]) from cause
    except YAMLError as cause:
        raise DocumentError([f"{path}: not YAML: {cause}"]) from cause
    except RecursionError:
        raise DocumentError([f"{path}: nested too deeply; expected a few levels"]) from None
    if doubled is None and told.problems:
        raise DocumentError([problem.sentence for problem in told.problems])
    if doubled is not None:
        doubled += told.problems
    if b"&" in content:
        _refuse_bombs(found, path)
    return found


def only_document(content: bytes, path: Path | str, doubled: list[Problem] | None = None) -> Any:  # noqa: ANN401 - YAML is any structure
    """The only document in a file's bytes, as `documents` gives them. Raises DocumentError."""
    found = documents(content, path, doubled)
    if len(found) != 1:
        raise DocumentError([f"{path}: {len(found)} documents; expected one"])
    return found[0]


def _text(content: bytes, path: Path | str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        where = _where(content[: cause.start].decode("utf-8-sig"))
        byte = f"byte 0x{content[cause.start]:02x} is not UTF-8; expected a YAML file in UTF-8"
        raise DocumentError([f"{path}:{where}: {byte}"]) from cause


def _where(before: str) -> str:
    """LINE:COLUMN of what comes after this text."""
    lines = before.split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"


class _Doubled:
    """Keys that stand twice in a mapping, each a problem."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self.problems: list[Problem] = []

    def constructor(self) -> type[RoundTripConstructor]:
        told = self

        class Constructor(RoundTripConstructor):
            def check_mapping_key(self, _: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:  # noqa: ANN401 - as above
                if key not in mapping:
                    return True
                told.add(key_node.start_mark, mapping, key, value)
                return False

            def construct_non_recursive_object(self, node: Any, tag: str | None = None) -> Any:  # noqa: ANN401 - as above
                try:
                    return super().construct_non_recursive_object(node, tag)
                except (ArithmeticError, KeyError, ValueError) as cause:  # 2026-13-01, !!int x, or 5,000 digits
                    kind = str(tag or node.tag).rpartition(":")[2]
                    problem = f"cannot be read as {printable(kind)}; expected one, or text in quotes"
                    raise ConstructorError(None, None, problem, node.start_mark) from cause

        return Constructor

    def add(self, mark: Any, mapping: Any, key: object, value: object) -> None:  # noqa: ANN401 - as above
        line, column = mark.line + 1, mark.column + 1
        first = f"; line {mapping.lc.data[key][0] + 1} has it" if key in (mapping.lc.data or ()) else ""
        problem = f"value {short(value, str(key))}: expected each key once{first}"
        sentence = f"{self._path}:{line}:{column}: {printable(str(key))}: {problem}"
        self.problems.append(Problem(line, column, sentence))


def printable(text: str) -> str:
    """Names from a file for a message: what could command a terminal is written as an escape."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def short(value: Any, key: str) -> str:  # noqa: ANN401 - whatever stood in the file
    """The value of a key in a message: as Python writes it, on one line of a terminal."""
    text = _LOGIN.sub("://(not shown)@", repr(_without_secrets(value, key)))
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line of a terminal


def _without_secrets(value: Any, key: str) -> Any:  # noqa: ANN401 - whatever stood in the file
    """Messages end up in logs: what a key that sounds like a secret has is left out; names of files are not."""
    if isinstance(value, CommentedMap):
        return {name: _without_secrets(each, str(name)) for name, each in value.items()}
    return _Hidden() if _SECRET.search(key) and not key.endswith("_file") else value


class _Hidden:
    def __repr__(self) -> str:
        return "(not shown)"


def _refuse_bombs(found: Sequence[Any], path: Path | str) -> None:
    sizes: dict[int, int] = {}
    if sum(_size(document, sizes) for document in found) > MAX_VALUES:
        raise DocumentError([f"{path}: aliases make it more than {MAX_VALUES} values; expected at most that"])


def _size(node: Any, sizes: dict[int, int]) -> int:  # noqa: ANN401 - YAML is any structure
    """How many values it is with each alias written out; an alias within its own anchor was read as null."""
    if not isinstance(node, (Mapping, list)):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = 1 + sum(_size(child, sizes) for child in _children(node))
    return sizes[id(node)]


def _children(node: Mapping[Any, Any] | list[Any]) -> Iterator[Any]:
    return iter(node.values() if isinstance(node, Mapping) else node)
