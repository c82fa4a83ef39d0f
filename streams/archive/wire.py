"""ClickHouse's HTTP protocol, byte for byte: Native headers, compressed frames, statuses, content types."""

from collections.abc import Iterator, Sequence

_FRAME_BYTES = 1 << 20
_LZ4 = 0x82
_FRAME_HEADER_BYTES = 9  # method, compressed size with this header, size; the checksum covers them

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_JSON = "application/json; charset=UTF-8"
_CONTENT_TYPES = {
    "json": _JSON,
    "jsoncompact": _JSON,
    "jsonstrings": _JSON,
    "jsoncompactstrings": _JSON,
    "jsoncolumns": _JSON,
    "jsoncolumnswithmetadata": _JSON,
    "jsoncompactcolumns": _JSON,
    "jsonobjecteachrow": _JSON,
    "xml": "application/xml; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "csvwithnamesandtypes": "text/csv; charset=UTF-8; header=present",
    "markdown": "text/markdown; charset=UTF-8",
}
_BINARY = frozenset({
    "native", "rowbinary", "rowbinarywithnames", "rowbinarywithnamesandtypes", "arrow", "arrowstream", "parquet",
    "orc", "avro", "npy", "msgpack", "bsoneachrow", "buffers", "rawblob", "png",
})  # fmt: skip

# As ClickHouse maps them, and: 403 for what a read-only endpoint refuses (there 500), 503 when it is busy, so that
# clients come again.
_BAD_REQUEST = (
    6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 374, 376, 427, 441, 675, 676
)  # fmt: skip
_NOT_FOUND = (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 372, 511)
_STATUSES = {
    **dict.fromkeys(_BAD_REQUEST, 400),
    **dict.fromkeys(_NOT_FOUND, 404),
    **dict.fromkeys((164, 452, 497, 516), 403),
    48: 501,
    159: 408,
    **dict.fromkeys((76, 202, 209, 439), 503),
    229: 413,
}
_DEFAULT_STATUS = 500


def varint(number: int) -> bytes:
    """An unsigned number in seven bits a byte, lowest first."""
    out = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - the eighth bit says "goes on"
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends. Raises IndexError."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the eighth bit says "goes on"
            return number, at


def string(text: str) -> bytes:
    """UTF-8 behind its length."""
    data = text.encode()
    return varint(len(data)) + data


def escaped(text: str) -> str:
    """A parameter's value as it stands in a URL, before that is encoded."""
    return text.translate(_ESCAPES)


def exception_block(message: str, tag: str) -> bytes:
    """What ends a body in which rows were sent already; the tag stood in the headers, so that no row looks like it."""
    text = f"{message}\n".encode()
    return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag.encode(), text, len(text), tag.encode())


def empty_block(columns: Sequence[tuple[str, str]]) -> bytes:
    """A Native block of zero rows: the (name, type) of every column. The embedded engine writes nothing at all then."""
    return varint(len(columns)) + b"\0" + b"".join(string(name) + string(kind) for name, kind in columns)


def hello_block(version: str, timezone: str) -> bytes:
    """The answer to clickhouse-go's first query, `SELECT displayName(), version(), revision(), timezone()`.

    That client decodes this one block by the revision it asked for (block info, a flag of custom serialization for each
    column) and everything later by the revision it finds here: 0, plain Native.
    """
    columns = (
        ("displayName()", "String", string("fleetbeat")),
        ("version()", "String", string(version)),
        ("revision()", "UInt32", (0).to_bytes(4, "little")),
        ("timezone()", "String", string(timezone)),
    )
    block_info = b"\x01\x00\x02\xff\xff\xff\xff\x00"
    body = b"".join(string(name) + string(kind) + b"\0" + data for name, kind, data in columns)
    return block_info + varint(len(columns)) + varint(1) + body


def compressed(data: bytes) -> Iterator[bytes]:
    """Frames of `compress=1`: CityHash128 of what follows, then an LZ4 block behind its sizes."""
    from clickhouse_cityhash.cityhash import CityHash128  # noqa: PLC0415 - only some clients ask for it
    from lz4.block import compress  # noqa: PLC0415

    for begin in range(0, len(data), _FRAME_BYTES):
        plain = data[begin : begin + _FRAME_BYTES]
        packed = compress(plain, store_size=False)
        sizes = (len(packed) + _FRAME_HEADER_BYTES).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
        frame = bytes([_LZ4]) + sizes + packed
        checksum = CityHash128(frame)
        yield (checksum >> 64).to_bytes(8, "little") + (checksum & (1 << 64) - 1).to_bytes(8, "little")
        yield frame


def http_status(code: int) -> int:
    """The status that goes with an error code."""
    return _STATUSES.get(code, _DEFAULT_STATUS)


def content_type(output_format: str) -> str:
    """What ClickHouse calls a format in HTTP."""
    name = output_format.lower()
    if name in _BINARY:
        return "application/octet-stream"
    if name in _CONTENT_TYPES:
        return _CONTENT_TYPES[name]
    if "json" in name:
        return "application/x-ndjson; charset=UTF-8"
    if name.startswith(("tab", "tsv", "raw")):
        return "text/tab-separated-values; charset=UTF-8"
    return "text/plain; charset=UTF-8"
