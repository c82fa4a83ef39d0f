"""What stands behind the question mark: names that are known, each once, and whole numbers within bounds."""

from collections.abc import Collection, Mapping

from multidict import MultiMapping

from streams.views.answers import bad_request


def require_known(query: MultiMapping[str], names: Collection[str]) -> None:
    """Raises HTTPBadRequest."""
    if len(set(query)) < len(query):
        raise bad_request(f"parameters {list(query)[:10]}; expected each once")
    unknown = [name for name in query if name not in names]
    if unknown:
        raise bad_request(f"{unknown[0][:100]}: not a parameter; expected {', '.join(names)}")


def whole_number(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    """From 1 to `most`; `usual` when it is not given. Raises HTTPBadRequest."""
    text = query.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 0 < int(text) <= most):
        raise bad_request(f"{name}: value {text[:100]!r}; expected 1 to {most}")
    return int(text)
