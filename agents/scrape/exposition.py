"""Samples of a few names from a page of Prometheus' text format or OpenMetrics, without reading the rest of the page.

A page of a host has two thousand samples and one configured name a few: the others are passed over by a search for
bytes. What is read is strict, since half a number is a number too.
"""

import re
from collections.abc import Iterable, Iterator

OPEN_METRICS = "application/openmetrics-text"
_EOF = b"# EOF"
_BLANKS = b" \t"
_SHOWN = 80

# Each part takes as much as it can and gives nothing back (*+), so that no line takes more than linear time.
_REST = re.compile(
    rb"""
    (?: [ \t]*+ \{
        (?: [ \t]*+ [a-zA-Z_][a-zA-Z0-9_]*+ [ \t]*+ = [ \t]*+
            " (?: [^"\\\n]++ | \\[^\n] )*+ " [ \t]*+ (?: , | (?=\}) ) )*+
    [ \t]*+ \} )?+
    [ \t]*+ ( [^ \t\n{#]++ )                    # the value
    (?: [ \t]++ -?+ [0-9] [0-9.eE+]*+ )?+       # when, in ms or s
    [ \t\r]*+ (?: \# [^\n]*+ )?+                # an exemplar
    (?: \n | \Z )
    """,
    re.VERBOSE,
)
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\.)*+)"')
_ESCAPE = re.compile(rb"\\(.)")
_INDENTED = re.compile(rb"(?:\A|\n)[ \t]")
_INDENT = re.compile(rb"(?m)^[ \t]++")


class NotExpositionError(ValueError):
    """The page cannot be trusted as a whole: it is cut off, or a line of a wanted name is not understood."""


class Wanted:
    """Names of samples to look for, as they stand in front of a line: with _total, _bucket and so on."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(name.encode("ascii") for name in names))
        self._needles = tuple((b"\n" + name, len(name)) for name in self._names)

    def samples(self, page: bytes, content_type: str = "") -> Iterator[tuple[bytes, bytes]]:
        """(series, value) as they stand there: a name with its labels, and the text of a number.

        Times and exemplars are left out. Equal series may be written in different ways, see `labels_of`. Raises
        NotExpositionError.
        """
        page = _whole(page, content_type)
        if not page.startswith(b"\n"):
            for name in self._names:
                if page.startswith(name) and (sample := _sample(page, 0, len(name))):
                    yield sample
        for needle, size in self._needles:
            at = page.find(needle)
            while at >= 0:
                if sample := _sample(page, at + 1, at + 1 + size):
                    yield sample
                at = page.find(needle, at + size)


def _whole(page: bytes, content_type: str) -> bytes:
    """The page with each line at its begin. Raises NotExpositionError for one that was cut off."""
    if content_type.startswith(OPEN_METRICS):
        if not page.rstrip(b"\n").endswith(_EOF):
            raise NotExpositionError(f"the page ends with {bytes(page[-_SHOWN:])!r}; expected # EOF")
    elif page and not page.endswith(b"\n"):
        raise NotExpositionError(f"the page ends with {bytes(page[-_SHOWN:])!r}; expected the end of a line")
    return _INDENT.sub(b"", page) if _INDENTED.search(page) else page


def _sample(page: bytes, begin: int, after_name: int) -> tuple[bytes, bytes] | None:
    """The sample of the line; None when its name only begins with the wanted one."""
    if page[after_name : after_name + 1] not in b"{ \t\r\n":
        return None
    found = _REST.match(page, after_name)
    if found is None:
        raise NotExpositionError(f"{_line(page, begin)!r}; expected a name, labels and a number")
    return page[begin : found.start(1)].rstrip(_BLANKS), found[1]


def _line(page: bytes, begin: int) -> bytes:
    end = page.find(b"\n", begin)
    return bytes(page[begin : min(begin + _SHOWN, end if end >= 0 else len(page))])


def labels_of(series: bytes) -> dict[str, str]:
    """The labels of a series, unescaped; what is not UTF-8 is replaced. A label that is there twice counts once."""
    found = _LABEL.findall(series, series.find(b"{"))
    return {name.decode("ascii"): _ESCAPE.sub(_unescaped, value).decode("utf-8", "replace") for name, value in found}


def _unescaped(found: "re.Match[bytes]") -> bytes:
    return b"\n" if found[1] == b"n" else found[1] if found[1] in b'"\\' else found[0]
