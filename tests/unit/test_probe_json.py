"""JSON bodies: what a path selects, how values compare, and what is said when they do not."""

import json
import time
from typing import Any

import pytest

from agents.probes.http_json import JsonExpected, JsonJudge
from agents.probes.json_path import MAX_NODES, MAX_STEPS, TooManyNodesError, json_path

# Taken from the examples of RFC 9535, 1.5 and 2.3.
STORE: dict[str, Any] = {
    "store": {
        "book": [{"author": "Rees", "price": 8.95}, {"author": "Waugh", "price": 12.99}],
        "bicycle": {"price": 399},
    },
    "o": {"j j": {"k.k": 3}},
    "'": {"@": 2},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("$", [STORE]),
        ("$.store.book[*].author", ["Rees", "Waugh"]),
        ("$.store.*", [STORE["store"]["book"], STORE["store"]["bicycle"]]),
        ("$['store']['book'][0]['price']", [8.95]),
        ("$.store.book[-1].author", ["Waugh"]),
        ("$.store.book[2]", []),
        ("$.store.book[-3]", []),
        ("$.o['j j']['k.k']", [3]),
        ('$.o["j j"]["k.k"]', [3]),
        (r"$['\'']['@']", [2]),
        ("$.store[0]", []),
        ("$.store.book.author", []),
        ("$.nowhere.at.all", []),
    ],
)
def test_a_path_selects(path: str, values: list[Any]) -> None:
    assert json_path(path).select(STORE) == values


@pytest.mark.parametrize(
    "path",
    ["", "store", "$.", "$..author", "$.a[?@.b]", "$.a[1:2]", "$.a[01]", "$.a[-0]", "$['a'", "$.a b", "$" + ".a" * 33],
)
def test_what_is_no_path_or_could_take_too_long_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not understood from"):
        json_path(path)


def test_a_path_that_selects_too_much_is_an_error_and_takes_no_longer_than_the_document() -> None:
    wide: Any = [[0] * 200 for _ in range(200)]
    with pytest.raises(TooManyNodesError, match=f"selects more than {MAX_NODES} values"):
        json_path("$[*][*]").select(wide)
    deep: Any = 0
    for _ in range(MAX_STEPS):
        deep = {"a": deep, "b": deep}  # 2 ** 32 paths lead down, through 33 objects
    began_s = time.process_time()
    with pytest.raises(TooManyNodesError):
        json_path("$" + ".*" * MAX_STEPS).select(deep)
    assert time.process_time() - began_s < 1


def complaint(document: object, **expected: object) -> str | None:
    judge = JsonJudge((JsonExpected.model_validate({"path": "$.a", **expected}),))
    return judge.complaint(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("value", "expected", "said"),
    [
        ("UP", {"equals": "UP"}, None),
        (1, {"equals": 1.0}, None),
        (None, {"equals": None}, None),
        (True, {"equals": True}, None),
        (1, {"equals": True}, "$.a is 1; expected true"),
        (False, {"equals": 0}, "$.a is false; expected 0"),
        ("1", {"equals": 1}, '$.a is "1"; expected 1'),
        (0, {"equals": None}, "$.a is 0; expected null"),
        ("down", {"not_equals": "down"}, '$.a is "down"; expected anything but "down"'),
        ("up", {"not_equals": "down"}, None),
        ("abc", {"contains": "b"}, None),
        (["x", "y"], {"contains": "y"}, None),
        (["xy"], {"contains": "y"}, "$.a is [\"xy\"]; expected 'y' in it"),
        ("v1.2", {"regex": r"^v\d"}, None),
        (12, {"regex": r"^\d"}, "$.a is 12; expected a text that '^\\\\d' matches"),
        (5, {"at_least": 5, "at_most": 5}, None),
        (4, {"at_least": 5}, "$.a is 4; expected at least 5"),
        (True, {"at_least": 1}, "$.a is true; expected at least 1"),
        ("9", {"at_most": 10}, '$.a is "9"; expected at most 10'),
        ("x" * 99, {"equals": 1}, f'$.a is "{"x" * 58}…; expected 1'),
    ],
)
def test_a_value_is_as_expected_or_the_complaint_says_both(
    value: object, expected: dict[str, Any], said: str | None
) -> None:
    assert complaint({"a": value}, **expected) == said


@pytest.mark.parametrize(
    ("document", "expected", "said"),
    [
        ({"a": None}, {}, None),
        ({}, {}, "$.a is not there; expected at least 1"),
        ({}, {"min_count": 0, "equals": 1}, None),
        ({"a": 2}, {"min_count": 0, "equals": 1}, "$.a is 2; expected 1"),
        ({}, {"max_count": 0}, None),
        ({"a": 2}, {"max_count": 0}, "$.a selects 1 values; expected at most 0"),
        ({"a": [1, 2]}, {"path": "$.a[*]", "min_count": 3}, "$.a[*] selects 2 values; expected at least 3"),
    ],
)
def test_as_many_values_are_there_as_should(document: object, expected: dict[str, Any], said: str | None) -> None:
    assert complaint(document, **expected) == said


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_json_is_a_complaint_and_no_crash(body: bytes) -> None:
    assert (JsonJudge((JsonExpected(path="$"),)).complaint(body) or "").startswith("no JSON: ")
