"""Wanted samples of a page are those that Prometheus' own parser finds there, and a broken page is refused."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from agents.scrape.exposition import OPEN_METRICS, NotExpositionError, Wanted, labels_of

WANTED = ("http_requests_total", "http_seconds_bucket", "up")
NAMES = (*WANTED, "http_requests", "http_requests_total_old", "up_since", "upper", "x:up")
LABELS = ("code", "le", "path", "_x")

blanks = st.sampled_from(["", " ", "\t", "  \t "])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda text: not set(text) & set("\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")  # their parser splits lines at these
)
values = st.one_of(
    st.integers(0, 1 << 70).map(str),
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(["+Inf", "-Inf", "NaN", "1.027e+06", "0"]),
)


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@st.composite
def lines(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["sample", "sample", "sample", "help", "comment", "empty"]))
    name = draw(st.sampled_from(NAMES))
    if kind == "help":
        return f"# HELP {name} {escaped(draw(texts))}"
    if kind == "comment":
        return f"# {name} 7"
    if kind == "empty":
        return ""
    labels = draw(st.dictionaries(st.sampled_from(LABELS), texts, max_size=3))
    inside = ",".join(f'{label}{draw(blanks)}="{escaped(text)}"' for label, text in labels.items())
    ends_with_comma, has_braces = draw(st.booleans()), draw(st.booleans())
    if labels and ends_with_comma:
        inside += ","
    some = f"{{{inside}}}" if labels or has_braces else ""
    when = f" {draw(st.integers(-5, 1 << 41))}" if draw(st.booleans()) else ""
    return f"{draw(blanks)}{name}{some}{draw(blanks)} {draw(values)}{when}{draw(blanks)}"


def same(value: str, theirs: float) -> bool:
    ours = float(value)
    return ours == float(theirs) or (math.isnan(ours) and math.isnan(theirs))


def found(page: str, content_type: str = "") -> list[tuple[str, dict[str, str], str]]:
    samples = Wanted(WANTED).samples(page.encode(), content_type)
    return [(series.partition(b"{")[0].strip().decode(), labels_of(series), text.decode()) for series, text in samples]


@given(st.lists(lines(), max_size=12))
def test_the_wanted_samples_are_those_of_the_reference_parser(rows: list[str]) -> None:
    page = "\n".join(rows) + "\n"
    theirs = [sample for family in plain(page) for sample in family.samples if sample.name in WANTED]
    ours = sorted(found(page), key=lambda one: WANTED.index(one[0]))  # its first line comes first
    expected = sorted(theirs, key=lambda sample: WANTED.index(sample.name))
    assert [(name, labels) for name, labels, _ in ours] == [(one.name, one.labels) for one in expected]
    assert all(same(text, one.value) for (_, _, text), one in zip(ours, expected, strict=True))


OPEN = """\
# TYPE http_requests counter
http_requests_total{code="200"} 7.0 # {trace_id="a#b"} 0.5 1520879607.789
http_requests_created{code="200"} 1605281325.0
# TYPE http_seconds histogram
http_seconds_bucket{le="0.1"} 3 # {trace_id="}"} 0.067
http_seconds_bucket{le="+Inf"} 5 # {} 7 1520879607.789
http_seconds_count 5
http_seconds_sum 1.5
# EOF
"""


def test_exemplars_and_times_of_openmetrics_are_left_out() -> None:
    families = open_metrics(OPEN)  # type: ignore[no-untyped-call]
    theirs = [one for family in families for one in family.samples if one.name in WANTED]
    assert found(OPEN, OPEN_METRICS) == [
        ("http_requests_total", {"code": "200"}, "7.0"),
        ("http_seconds_bucket", {"le": "0.1"}, "3"),
        ("http_seconds_bucket", {"le": "+Inf"}, "5"),
    ]
    assert [(one.name, one.labels, one.value) for one in theirs] == [
        (name, labels, float(text)) for name, labels, text in found(OPEN, OPEN_METRICS)
    ]


def test_a_name_is_found_on_the_first_line_and_on_the_last_and_everywhere_between() -> None:
    page = 'up 1\nup{a="1"} 2\nhttp_requests_total 3\nup{a="2"} 4\n'
    assert [text for _, _, text in found(page)] == ["1", "3", "2", "4"]
    assert found("") == []


@pytest.mark.parametrize(
    "line",
    [
        "up",
        "up ",
        "up{",
        'up{a="1}',
        "up{a=1} 1",
        'up{a="1" b="2"} 1',
        "up{} ",
        'up{a="\\',
        "up 1 2 3",
        "up 1 x",
        'up{a="1"}{b="2"} 1',
    ],
)
def test_a_wanted_line_that_is_not_understood_refuses_the_page(line: str) -> None:
    with pytest.raises(NotExpositionError, match=r"expected a name, labels and a number$"):
        found(f"http_requests_total 1\n{line}\nup 2\n")
    assert found(f"http_requests_total 1\n{line.replace('up', 'down')}\n") == [("http_requests_total", {}, "1")]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_page_that_is_cut_off_is_refused_since_half_a_number_is_one_too(cut: int) -> None:
    page = "up 3\nhttp_requests_total 1234567\n"
    with pytest.raises(NotExpositionError, match="expected the end of a line"):
        found(page[:-cut] if page[-cut - 1] != "\n" else page[: -cut - 2])
    with pytest.raises(NotExpositionError, match="expected # EOF"):
        found(OPEN[:-cut].removesuffix("# EOF"), OPEN_METRICS)


@pytest.mark.parametrize("text", ["up{" + " " * 1_000_000, 'up{a="' + "\\x" * 500_000, "up" + " " * 1_000_000, "up{a"])
def test_no_line_takes_more_than_linear_time(text: str) -> None:
    began_s = time.process_time()
    with pytest.raises(NotExpositionError):
        found(f"{text}\n")
    assert time.process_time() - began_s < 1


def test_what_is_no_utf_8_and_a_label_that_is_there_twice_are_taken_as_they_can_be() -> None:
    ((series, _),) = Wanted(["up"]).samples(b'up{a="\xff",b="1",b="2"} 1\n')
    assert labels_of(series) == {"a": "\ufffd", "b": "2"}
