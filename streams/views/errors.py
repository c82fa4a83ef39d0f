"""Whatever goes wrong in a view is answered in JSON: a refusal with its reason, and a bug without its details."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from streams.processors.queries import KeptElsewhereError, NotHereError
from streams.views import registry
from streams.views.answers import MAX_SHOWN, error
from streams.views.peers import NOBODY_ELSE, NOT_PASSED_ON, passed_on

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.views")


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The answer, or why there is none."""
    try:
        return await handler(request)
    except NotHereError as reason:
        why = str(reason)
        if isinstance(reason, KeptElsewhereError):
            why += NOT_PASSED_ON if passed_on(request) else NOBODY_ELSE
        return web.Response(status=503, body=error(why), content_type="application/json", headers={"Retry-After": "2"})
    except web.HTTPError as refusal:
        if refusal.content_type != "application/json":  # aiohttp's own, in plain text
            _say(refusal, request.path)
        raise
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("view failed", path=request.path)
        return web.Response(
            status=500, body=error("internal error; see the worker's log"), content_type="application/json"
        )


def _say(refusal: web.HTTPError, path: str) -> None:
    """Why, in JSON, and for a client of a registry in the words that those expect."""
    shown = repr(path[:MAX_SHOWN])
    match refusal:
        case web.HTTPNotFound():
            why = f"no path {shown}; expected one of those that / lists"
        case web.HTTPMethodNotAllowed():
            why = (
                f"method {refusal.method[:MAX_SHOWN]} of {shown}; expected {', '.join(sorted(refusal.allowed_methods))}"
            )
        case _:
            why = refusal.text or refusal.reason
    if path.startswith(registry.PREFIXES):
        refusal.body, refusal.content_type = registry.refusal(refusal.status, why), registry.CONTENT_TYPE
    else:
        refusal.body, refusal.content_type = error(why), "application/json"
