"""YAML documents: every problem comes at once, each with its place, its value and what was expected."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from schemas.documents import DocumentError, load_document, parse, position, read_all
from schemas.yaml_files import MAX_FILE_BYTES


class Probe(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    every_s: int
    url: str = ""


class Agent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    node: str
    probes: list[Probe] = []
    first: Probe | None = None


def problems(folder: Path, text: str) -> list[str]:
    """The problems of a file with that text, without its folder."""
    path = folder / "agent.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError) as caught:
        load_document(path, Agent)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [problem.replace(f"{path}", "agent.yaml") for problem in caught.value.problems]


def test_a_good_file_is_the_model(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("node: n1\nprobes:\n  - {every_s: 5, url: http://a}\n")
    assert load_document(path, Agent) == Agent(node="n1", probes=[Probe(every_s=5, url="http://a")])


def test_all_problems_come_at_once_with_their_places(tmp_path: Path) -> None:
    text = "nod: n1\nprobes:\n  - {every_s: soon, url: 3}\n  - evry_s: 5\nfirst: 7\n"
    assert problems(tmp_path, text) == [
        "agent.yaml:1:1: node: missing; expected a value",
        "agent.yaml:3:6: probes.0.every_s: value 'soon': expected a valid integer",
        "agent.yaml:3:21: probes.0.url: value 3: expected a valid string",
        "agent.yaml:4:5: probes.1.every_s: missing; expected a value",
        "agent.yaml:4:5: probes.1.evry_s: unknown key (value 5)",
        "agent.yaml:5:1: first: value 7: expected a mapping",
        "agent.yaml:1:1: nod: unknown key (value 'n1')",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "agent.yaml: 0 documents; expected one"),
        ("node: a\n---\nnode: b\n", "agent.yaml: 2 documents; expected one"),
        ("just words\n", "agent.yaml:1:1: document: value 'just words': expected a mapping"),
        ("- node\n", "agent.yaml:1:1: document: value ['node']: expected a mapping"),
        ("node: [\n", "agent.yaml:2:1: not YAML: expected the node content, but found '<stream end>'"),
        (
            "node: a\nnode: b\n",
            "agent.yaml:2:1: node: value 'b': expected each key once; line 1 has it",
        ),
        (
            "base: &b {every_s: x}\nnode: a\nfirst:\n  <<: *b\n",
            "agent.yaml:3:1: first.every_s: value 'x': expected a valid integer",
        ),
        (f"node: [{'x' * 200}]\n", f"agent.yaml:1:1: node: value ['{'x' * 75}...: expected a valid string"),
    ],
)
def test_a_bad_file_is_refused_in_so_many_words(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text)[0] == problem


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.yaml: no such file; expected a YAML file$"):
        load_document(tmp_path / "none.yaml", Agent)
    with pytest.raises(DocumentError, match=r": cannot be read: is a directory; expected a YAML file$"):
        load_document(tmp_path, Agent)
    (tmp_path / "latin.yaml").write_bytes(b"node: \xe9\n")
    with pytest.raises(DocumentError, match=r"latin\.yaml:1:7: byte 0xe9 is not UTF-8; expected a YAML file in UTF-8$"):
        load_document(tmp_path / "latin.yaml", Agent)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"node: a\nnode\0: b\n", ":2:5: not YAML: character U+0000; expected text without", id="NUL"),
        pytest.param("node: a\n".encode("utf-16"), ":1:1: byte 0xff is not UTF-8; expected a YAML file", id="UTF-16"),
        pytest.param(b"node:\n\t- a\n", ":2:1: not YAML: found character '\\t' that cannot start any token", id="tab"),
        pytest.param(b"[" * 1_000, ": nested too deeply; expected a few levels", id="depth"),
        pytest.param(
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(b"%c: &%c [%b]\n" % (at + 1, at + 1, b", ".join([b"*%c" % at] * 8)) for at in range(97, 107)),
            ": aliases make it more than 1000000 values; expected at most that",
            id="bomb",
        ),
        pytest.param(b"a" * (MAX_FILE_BYTES + 1), ": larger than 16777216 bytes; expected a YAML file", id="size"),
    ],
)
def test_what_is_no_yaml_or_a_trap_is_refused_in_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(DocumentError) as refused:
        read_all(tmp_path / "x.yaml")
    (problem,) = refused.value.problems
    assert problem.startswith(f"{tmp_path}/x.yaml{said}")


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfnode: a\nprobes: 3\n")
    with pytest.raises(DocumentError, match=r"x.yaml:2:1: probes: value 3: expected a valid list$"):
        load_document(tmp_path / "x.yaml", Agent)


def test_aliases_that_are_no_bomb_are_fine(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("node: a\nfirst: &b {every_s: 1}\nprobes: [*b, *b]\n")
    assert len(load_document(tmp_path / "x.yaml", Agent).probes) == 2


def test_every_key_that_stands_twice_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "node: a\nfirst: {every_s: 1, every_s: 2}\nnode: b\n") == [
        "agent.yaml:2:21: every_s: value 2: expected each key once; line 2 has it",
        "agent.yaml:3:1: node: value 'b': expected each key once; line 1 has it",
    ]


def test_places_count_through_all_documents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("node: a\n---\n# second\nnode: b\nprobes: [{every_s: 1}]\n")
    first, second = read_all(path)
    assert parse(first, Agent, "x").node == "a"
    assert position(second, ("node",)) == (4, 1)
    assert position(second, ("probes", 0, "every_s")) == (5, 11)
    assert position(second, ("probes", 0, "no such key")) == (5, 10)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        pytest.param("2026-13-01", "timestamp", id="a month too many"),
        pytest.param("2001-12-14t21:59:43.10-99:00", "timestamp", id="no such zone"),
        pytest.param("9" * 5_000, "int", id="more digits than Python reads"),
        pytest.param("!!int many", "int", id="a tag that is not true"),
        pytest.param("!!bool maybe", "bool", id="neither true nor false"),
    ],
)
def test_what_looks_like_a_value_and_is_none_is_refused_at_its_place(tmp_path: Path, value: str, kind: str) -> None:
    said = f"cannot be read as {kind}; expected one, or text in quotes"
    assert problems(tmp_path, f"node: a\nprobes: [{{url: {value}}}]\n") == [f"agent.yaml:2:16: not YAML: {said}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('node: a\n"\\e[31mred": 1\n', "agent.yaml:2:1: \\x1b[31mred: unknown key (value 1)"),
        ('"\\e[2J": 1\n"\\e[2J": 2\n', "agent.yaml:2:1: \\x1b[2J: value 2: expected each key once; line 1 has it"),
        ("node: *\u202eon\n", "agent.yaml:1:7: not YAML: found undefined alias '\\u202eon'"),
    ],
)
def test_names_from_a_file_cannot_command_a_terminal(tmp_path: Path, text: str, said: str) -> None:
    assert problems(tmp_path, text) == [said]
