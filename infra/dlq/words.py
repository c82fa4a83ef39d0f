"""Letters as text: everything that came from outside is escaped, so that it cannot command a terminal. Pure."""

from datetime import UTC, datetime

_LINE = 16
_LINES_BEFORE, _LINES_AFTER = 1, 3
_MAX_CELL = 60


def plain(text: str) -> str:
    """The text with control, format and direction characters written as escapes."""
    return "".join(
        letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def key_text(key: bytes | None) -> str:
    """A record's key as text, not yet escaped; hex where it is no text."""
    if key is None:
        return "null"
    try:
        return key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"


def cell(text: str) -> str:
    """Short enough for a column."""
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}…"


def moment(ms: int) -> str:
    """A time in ms as ISO 8601 in UTC; the number itself where there is no such day."""
    try:
        return (
            datetime.fromtimestamp(ms / 1_000, UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError, OSError):
        return str(ms)


def hex_dump(value: bytes, at: int) -> list[str]:
    """Some lines of 16 bytes around `at`, with offset, hex and text; a caret below the byte itself."""
    here = at // _LINE
    lines = []
    for number in range(max(here - _LINES_BEFORE, 0), here + _LINES_AFTER):
        piece = value[number * _LINE : (number + 1) * _LINE]
        if piece or number == here:
            text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)  # noqa: PLR2004 - ASCII
            lines.append(f"{number * _LINE:08x}  {piece.hex(' '):<{3 * _LINE - 1}}  {text}".rstrip())
        if number == here:
            lines.append(" " * (10 + 3 * (at % _LINE)) + "^^")
    return lines
