"""`POST /-/reload`: the worker's files are looked at now, and the answer says what came of it."""

from aiohttp import web

from streams.options import WorkerOptions
from streams.processors.objectives_file import Failed, ObjectivesFile, Refused
from streams.settings.reload import STATUS, Reloader, answer
from streams.views.answers import json_response

UNPROCESSABLE, UNAVAILABLE = 422, 503
OK = 200


def reload_routes(file: ObjectivesFile, config: Reloader[WorkerOptions] | None = None) -> list[web.RouteDef]:
    """The route. The file of --config comes first, if there is one: it may name another file of objectives."""

    async def reload(_: web.Request) -> web.Response:
        told: dict[str, object] = {}
        if config is not None:
            found = await config.reload()
            if (status := STATUS[found.outcome]) != OK:
                return json_response(answer(found), status)
            told = {"config": answer(found)}
        match await file.reload():
            case Refused(problems):
                message = "the objectives file is refused, those of before stay"
                return json_response({"error": message, "problems": problems, **told}, UNPROCESSABLE)
            case Failed(reason):
                return json_response({"error": reason, **told}, UNAVAILABLE)
            case outcome:
                announced = {"announced": outcome.new, "objectives": outcome.objectives, "start_ms": outcome.start_ms}
                return json_response(announced | told)

    return [web.post("/-/reload", reload)]
