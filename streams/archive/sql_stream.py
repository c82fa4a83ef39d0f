"""Results that are sent as they come: blocks joined to one body of their format, and packed on the way."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from streams.archive import wire

# One block behind the other is what the engine itself would have written.
_ROWS = frozenset({
    "csv", "jsoncompacteachrow", "jsoncompactstringseachrow", "jsoneachrow", "jsonl", "jsonlines", "jsonstringseachrow",
    "msgpack", "native", "ndjson", "raw", "rowbinary", "tabseparated", "tabseparatedraw", "tskv", "tsv", "tsvraw",
})  # fmt: skip
# Lines of names, and perhaps of types, at the top of each block.
_HEADER_LINES = {
    **dict.fromkeys(("csvwithnames", "tabseparatedwithnames", "tsvwithnames"), 1),
    **dict.fromkeys(("jsoncompacteachrowwithnames", "jsoncompactstringseachrowwithnames"), 1),
    **dict.fromkeys(("csvwithnamesandtypes", "tabseparatedwithnamesandtypes", "tsvwithnamesandtypes"), 2),
    **dict.fromkeys(("jsoncompacteachrowwithnamesandtypes", "jsoncompactstringseachrowwithnamesandtypes"), 2),
}
# How many strings a column has there.
_BINARY_HEADER = {"rowbinarywithnames": 1, "rowbinarywithnamesandtypes": 2}
_ARROW = "arrowstream"
_ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"
# With these a result is more than its rows, or has a header that is not read here.
_WHOLE_SETTINGS = frozenset({
    "extremes", "output_format_binary_encode_types_in_binary_format", "output_format_json_array_of_rows",
})  # fmt: skip
_OFF = frozenset({"", "0", "false"})

HEADERLESS = {
    **{name: name.partition("withnames")[0] for name in (*_HEADER_LINES, *_BINARY_HEADER)},
}
"""The format of the rows of a format that has names above them."""


class Joiner:
    """Makes one body of blocks: takes the header off all but the first, and puts the end at the end."""

    def __init__(self, output_format: str) -> None:
        """Of a format that `can_stream`."""
        self._format = output_format.lower()
        self._header: bytes | None = None

    def add(self, block: bytes) -> bytes:
        """What this block adds to the body. Raises ValueError for a block with another header than the first."""
        if self._format == _ARROW:
            block = block.removesuffix(_ARROW_END)
        if self._header is None:
            self._header = block[: _header_bytes(self._format, block)]
            return block
        if not block.startswith(self._header):
            raise ValueError(f"a block of {self._format} begins with {block[:40]!r}; expected {self._header[:40]!r}")
        return block[len(self._header) :]

    def end(self) -> bytes:
        """What comes behind the last block."""
        return _ARROW_END if self._format == _ARROW else b""


def can_stream(output_format: str, settings: Mapping[str, str]) -> bool:
    """Whether blocks of this format can be joined; what is one document cannot."""
    name = output_format.lower()
    if any(settings.get(setting, "") not in _OFF for setting in _WHOLE_SETTINGS):
        return False
    return name in _ROWS or name in _HEADER_LINES or name in _BINARY_HEADER or name == _ARROW


def _header_bytes(output_format: str, block: bytes) -> int:
    if lines := _HEADER_LINES.get(output_format, 0):
        quoted, at = False, 0
        while lines:  # a name in quotes may hold a new line
            at += 1
            byte = block[at - 1 : at]
            quoted ^= byte == b'"' and output_format.startswith("csv")
            lines -= byte == b"\n" and not quoted
            if not byte:
                raise ValueError(f"a block of {output_format} without its header: {block[:40]!r}")
        return at
    if strings := _BINARY_HEADER.get(output_format, 0):
        columns, at = wire.read_varint(block, 0)
        for _ in range(columns * strings):
            length, at = wire.read_varint(block, at)
            at += length
        return at
    if output_format == _ARROW:  # the schema: a mark of four bytes, its length, and itself
        return 8 + int.from_bytes(block[4:8], "little")
    return 0


class Packer(Protocol):
    """Packs a body piece by piece."""

    def pack(self, data: bytes) -> bytes:
        """What can be sent already."""
        ...

    def end(self) -> bytes:
        """What comes at the end."""
        ...


class Frames:
    """`compress=1`: ClickHouse's own frames."""

    def pack(self, data: bytes) -> bytes:
        """Whole frames."""
        return b"".join(wire.compressed(data))

    def end(self) -> bytes:
        """Nothing."""
        return b""


class Gzip:
    """`Content-Encoding: gzip`."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(1, wbits=31)

    def pack(self, data: bytes) -> bytes:
        """What zlib gives out."""
        return self._stream.compress(data)

    def end(self) -> bytes:
        """The rest."""
        return self._stream.flush()


class Lz4:
    """`Content-Encoding: lz4`."""

    def __init__(self) -> None:
        from lz4.frame import LZ4FrameCompressor  # noqa: PLC0415 - only some clients ask for it

        self._stream = LZ4FrameCompressor()
        self._begun = False

    def pack(self, data: bytes) -> bytes:
        """What the compressor gives out."""
        packed: bytes = self._begin() + self._stream.compress(data)
        return packed

    def end(self) -> bytes:
        """The rest."""
        packed: bytes = self._begin() + self._stream.flush()
        return packed

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        header: bytes = self._stream.begin()
        return header


_ENCODINGS: dict[str, Callable[[], Packer]] = {"gzip": Gzip, "lz4": Lz4}


class Packing:
    """All that a client asked for, one after the other."""

    def __init__(self, *, compress: bool, encoding: str) -> None:
        """`encoding` as HTTP names it: gzip, lz4 or none."""
        self._packers: Sequence[Packer] = [
            *([Frames()] if compress else []),
            *([_ENCODINGS[encoding]()] if encoding else []),
        ]

    def pack(self, data: bytes) -> bytes:
        """What can be sent already."""
        for packer in self._packers:
            data = packer.pack(data) if data else b""
        return data

    def end(self) -> bytes:
        """What comes at the end."""
        data = b""
        for packer in self._packers:
            data = (packer.pack(data) if data else b"") + packer.end()
        return data
