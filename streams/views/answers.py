"""How answers look, good ones and others: JSON objects."""

import json

from aiohttp import web

# So much of what was asked for is said again where it is refused.
MAX_SHOWN = 100


def json_response(payload: object, status: int = 200) -> web.Response:
    """The payload as JSON."""
    return web.Response(status=status, body=json.dumps(payload).encode(), content_type="application/json")


def error(message: str) -> bytes:
    """The body of an answer that is none."""
    return json.dumps({"error": message}).encode()


def bad_request(message: str) -> web.HTTPBadRequest:
    """A request that cannot be understood; says field, value and what was expected."""
    return web.HTTPBadRequest(text=error(message).decode(), content_type="application/json")


def not_found(message: str) -> web.HTTPNotFound:
    """A thing that is not known."""
    return web.HTTPNotFound(text=error(message).decode(), content_type="application/json")
