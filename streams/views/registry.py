"""The catalog under Confluent Schema Registry's REST paths, read-only, for kcat, Kafka UIs and serializers."""

import json
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from aiohttp import web
from fastavro.schema import to_parsing_canonical_form

from schemas.catalog import Catalog, SchemaVersion, Topic
from streams.views.answers import MAX_SHOWN

PREFIXES = ("/schemas", "/subjects", "/config", "/mode", "/compatibility")
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_SUBJECT_NOT_FOUND, _VERSION_NOT_FOUND, _SCHEMA_NOT_FOUND = 40401, 40402, 40403
_INVALID_SCHEMA, _INVALID_VERSION, _READ_ONLY = 42201, 42202, 42205
_MAX_DIGITS = 10

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """An answer other than 200; the HTTP status is the first three digits of `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def registry_routes(catalog: Catalog) -> list[web.RouteDef]:
    """Routes that answer from `catalog`; they write nothing and need no registry elsewhere."""
    registry = _Registry(catalog)
    return [
        web.get("/schemas/types", _answered(registry.types)),
        web.get("/schemas/ids/{id}", _answered(registry.schema)),
        web.get("/schemas/ids/{id}/versions", _answered(registry.schema_versions)),
        web.get("/subjects", _answered(registry.subjects)),
        web.post("/subjects/{subject}", _answered(registry.lookup)),
        web.get("/subjects/{subject}/versions", _answered(registry.versions)),
        web.post("/subjects/{subject}/versions", _answered(registry.register)),
        web.get("/subjects/{subject}/versions/{version}", _answered(registry.version)),
        web.get("/config", _answered(registry.config)),
        web.get("/config/{subject}", _answered(registry.subject_config)),
    ]


class _Registry:
    """One method a path; what it returns is sent as JSON."""

    def __init__(self, catalog: Catalog) -> None:
        self._topics = {topic.subject: topic for topic in catalog.topics.values() if topic.versions}
        self._by_id = {version.id: (topic, version) for topic, version in catalog.schemas()}
        self._canonical = {schema_id: _canonical(version.text) for schema_id, (_, version) in self._by_id.items()}

    async def types(self, _: web.Request) -> list[str]:
        return ["AVRO"]

    async def schema(self, request: web.Request) -> dict[str, str]:
        return {"schema": self._numbered(request)[1].text}

    async def schema_versions(self, request: web.Request) -> list[dict[str, Any]]:
        topic, version = self._numbered(request)
        return [{"subject": topic.subject, "version": version.version}]

    async def subjects(self, _: web.Request) -> list[str]:
        return sorted(self._topics)

    async def versions(self, request: web.Request) -> list[int]:
        return [version.version for version in self._topic(request).versions]

    async def version(self, request: web.Request) -> dict[str, Any]:
        topic = self._topic(request)
        wanted = request.match_info["version"]
        if wanted in ("latest", "-1"):
            return _described(topic, topic.latest)
        number = _whole(wanted)
        if not number:
            message = f"version {wanted[:MAX_SHOWN]!r}; expected a whole number from 1, or latest"
            raise _Refusal(_INVALID_VERSION, message)
        for version in topic.versions:
            if version.version == number:
                return _described(topic, version)
        raise _Refusal(
            _VERSION_NOT_FOUND, f"{topic.subject} has no version {number}; the latest is {topic.latest.version}"
        )

    async def lookup(self, request: web.Request) -> dict[str, Any]:
        topic = self._topic(request)
        found = await self._same(request, topic)
        if found is None:
            raise _Refusal(_SCHEMA_NOT_FOUND, f"{topic.subject} has no version that writes what this schema writes")
        return _described(topic, found)

    async def register(self, request: web.Request) -> dict[str, int]:
        topic = self._topic(request)
        found = await self._same(request, topic)
        if found is None:
            message = f"schemas are read-only here: a new version of {topic.subject} is a file in schemas/avro"
            raise _Refusal(_READ_ONLY, message)
        return {"id": found.id}

    async def config(self, _: web.Request) -> dict[str, str]:
        return {"compatibilityLevel": "BACKWARD_TRANSITIVE"}

    async def subject_config(self, request: web.Request) -> dict[str, str]:
        return {"compatibilityLevel": self._topic(request).compatibility}

    def _topic(self, request: web.Request) -> Topic:
        subject = request.match_info["subject"]
        if subject not in self._topics:
            message = f"subject {subject[:MAX_SHOWN]!r} not found; expected one of {sorted(self._topics)}"
            raise _Refusal(_SUBJECT_NOT_FOUND, message)
        return self._topics[subject]

    def _numbered(self, request: web.Request) -> tuple[Topic, SchemaVersion]:
        text = request.match_info["id"]
        schema_id = _whole(text)
        if schema_id not in self._by_id:
            message = f"schema id {text[:MAX_SHOWN]!r} not found; expected one of {sorted(self._by_id)}"
            raise _Refusal(_SCHEMA_NOT_FOUND, message)
        return self._by_id[schema_id]

    async def _same(self, request: web.Request, topic: Topic) -> SchemaVersion | None:
        """The newest version of the topic that is the same on the wire as the schema in the request."""
        posted = await _posted(request)
        same = [version for version in topic.versions if self._canonical[version.id] == posted]
        return same[-1] if same else None


def _described(topic: Topic, version: SchemaVersion) -> dict[str, Any]:
    return {"subject": topic.subject, "version": version.version, "id": version.id, "schema": version.text}


async def _posted(request: web.Request) -> str:
    """Canonical form of the schema in the body."""
    try:
        body = json.loads(await request.text())
    except (LookupError, RecursionError, ValueError, web.RequestPayloadError) as cause:  # an unknown charset, too
        raise _Refusal(400, f"the body is not JSON: {cause}") from cause
    if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
        raise _Refusal(_INVALID_SCHEMA, 'expected {"schema": "<an Avro schema as a string>"}')
    if body.get("schemaType", "AVRO") not in ("AVRO", None):
        raise _Refusal(_INVALID_SCHEMA, f"schemaType {body['schemaType']!r}; expected AVRO")
    try:
        return _canonical(body["schema"])
    except Exception as cause:  # fastavro meets a foreign schema with whatever it stumbles over
        raise _Refusal(_INVALID_SCHEMA, f"not an Avro schema: {type(cause).__name__}: {cause}"[:500]) from cause


def _whole(text: str) -> int | None:
    """The number that the text is; ids and versions have 32 bits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _canonical(text: str) -> str:
    """Avro's parsing canonical form: names, order and types, which is all that bytes on the wire depend on."""
    return to_parsing_canonical_form(json.loads(text))


def _answered(handler: Callable[[web.Request], Awaitable[Any]]) -> Handler:
    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return _json(await handler(request), 200)
        except _Refusal as refusal:
            status = int(str(refusal.code)[:3])
            return _json(_said(refusal.code, str(refusal)), status)

    return answer


def refusal(code: int, message: str) -> bytes:
    """The body of an answer that is none, as clients of a registry read it."""
    return json.dumps(_said(code, message)).encode()


def _said(code: int, message: str) -> dict[str, Any]:
    return {"error_code": code, "message": message}


def _json(content: object, status: int) -> web.Response:
    return web.Response(body=json.dumps(content).encode(), status=status, content_type=CONTENT_TYPE)
