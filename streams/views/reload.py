"""`POST /-/reload`: the objectives file is looked at now, and the answer says what came of it."""

from aiohttp import web

from streams.processors.objectives_file import Failed, ObjectivesFile, Refused
from streams.views.answers import json_response

UNPROCESSABLE, UNAVAILABLE = 422, 503


def reload_routes(file: ObjectivesFile) -> list[web.RouteDef]:
    """The route."""

    async def reload(_: web.Request) -> web.Response:
        match await file.reload():
            case Refused(problems):
                message = "the objectives file is refused, those of before stay"
                return json_response({"error": message, "problems": problems}, UNPROCESSABLE)
            case Failed(reason):
                return json_response({"error": reason}, UNAVAILABLE)
            case outcome:
                answer = {"announced": outcome.new, "objectives": outcome.objectives, "start_ms": outcome.start_ms}
                return json_response(answer)

    return [web.post("/-/reload", reload)]
