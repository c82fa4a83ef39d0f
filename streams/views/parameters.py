"""What stands behind the question mark: names that are known, each once, and whole numbers within bounds."""

from collections.abc import Collection, Mapping

from multidict import MultiMapping

from streams.views.answers import MAX_SHOWN, bad_request

LAST_MS = 10**15 - 1  # in 30,000 years


def require_known(query: MultiMapping[str], names: Collection[str]) -> None:
    """Raises HTTPBadRequest."""
    if len(set(query)) < len(query):
        raise bad_request(f"parameters {list(query)[:10]}; expected each once")
    unknown = [name for name in query if name not in names]
    if unknown:
        raise bad_request(f"{unknown[0][:MAX_SHOWN]}: not a parameter; expected {', '.join(names) or 'none'}")


def moment_ms(query: Mapping[str, str], name: str) -> int:
    """A time that must be given. Raises HTTPBadRequest."""
    text = query.get(name, "")
    if not (_is_whole(text) and int(text) <= LAST_MS):
        raise bad_request(f"{name}: value {text[:MAX_SHOWN]!r}; expected milliseconds since 1970, UTC")
    return int(text)


def whole_number(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    """From 1 to `most`; `usual` when it is not given. Raises HTTPBadRequest."""
    text = query.get(name)
    if text is None:
        return usual
    if not (_is_whole(text) and 0 < int(text) <= most):
        raise bad_request(f"{name}: value {text[:MAX_SHOWN]!r}; expected 1 to {most}")
    return int(text)


def _is_whole(text: str) -> bool:
    """Digits, and not so many that reading them takes time, or that Python refuses to."""
    return text.isascii() and text.isdecimal() and len(text) <= len(str(LAST_MS))
