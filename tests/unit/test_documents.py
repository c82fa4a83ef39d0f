"""YAML documents: every problem comes at once, each with its place, its value and what was expected."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from schemas.documents import DocumentError, load_document, parse, position, read_all


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
            'agent.yaml:2:1: not YAML: found duplicate key "node" with value "b" (original value: "a")',
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
    with pytest.raises(DocumentError, match=r": cannot be read: \[Errno 21\] Is a directory"):
        load_document(tmp_path, Agent)
    (tmp_path / "latin.yaml").write_bytes(b"node: \xe9\n")
    with pytest.raises(DocumentError, match=r"latin\.yaml: cannot be read: 'utf-8' codec can't decode byte 0xe9"):
        load_document(tmp_path / "latin.yaml", Agent)


def test_places_count_through_all_documents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("node: a\n---\n# second\nnode: b\nprobes: [{every_s: 1}]\n")
    first, second = read_all(path)
    assert parse(first, Agent, "x").node == "a"
    assert position(second, ("node",)) == (4, 1)
    assert position(second, ("probes", 0, "every_s")) == (5, 11)
    assert position(second, ("probes", 0, "no such key")) == (5, 10)
