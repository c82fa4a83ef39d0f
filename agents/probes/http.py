"""Kind `http`: a request gets the expected status, headers and body, perhaps after redirects."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from agents.probes.base import FORBIDDEN_TARGET, Outcome, Phase, ProbeKind, Settings
from agents.probes.dial import Target, dialled
from agents.probes.http_answer import HttpAnswer
from agents.probes.http_auth import HttpAuth
from agents.probes.http_json import MAX_JSON_BYTES
from agents.probes.http_judge import Judge
from agents.probes.http_settings import Body, Expected, Headers, Method, SecretFiles
from agents.probes.resolver import SYSTEM_RESOLVER, Family, Resolver
from agents.probes.trace import current_trace
from agents.probes.trust import TlsSettings, read_secret
from agents.probes.url import Url, follow, parse_url
from agents.probes.watch import ProbeFailedError, Watch, watched

_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})
_FOLLOWING = frozenset({"GET", "HEAD"})
_OWN_HEADERS = {"User-Agent": "fleetbeat", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


def _is_url(text: str) -> str:
    parse_url(text)
    return text


class HttpConfig(Settings):
    """One request. Secrets stand in files: `header_files` gives each header the one line of a file.

    GET and HEAD follow redirects, up to `max_redirects`; other methods never do.
    """

    url: Annotated[str, AfterValidator(_is_url)]
    method: Method = "GET"
    headers: Headers = Field(default_factory=dict)
    header_files: SecretFiles = Field(default_factory=dict)
    auth: HttpAuth | None = None
    body: Body = ""
    family: Family = "any"
    tls: TlsSettings = TlsSettings()
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    max_body_bytes: Annotated[int, Field(ge=0, le=64 << 20)] = 1 << 20
    expect: Expected = Expected()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.auth is not None and "Authorization" in self.header_files:
            raise ValueError("auth and header_files.authorization; expected one of them")
        if self.expect.min_valid_days is not None and not (self.url.startswith("https:") and self.tls.verify):
            raise ValueError("expect.min_valid_days needs a certificate that is verified; expected https, tls.verify")
        if self.expect.body_json and self.max_body_bytes > MAX_JSON_BYTES:
            raise ValueError(f"max_body_bytes {self.max_body_bytes}; expected at most {MAX_JSON_BYTES} with body_json")
        return self

    def secrets(self) -> dict[str, str]:
        """The headers whose values stand in files, as of now. Raises ProbeFailedError, without a secret in it."""
        headers = {name: read_secret(path, f"header_files.{name}") for name, path in self.header_files.items()}
        return headers if self.auth is None else headers | {"Authorization": self.auth.header()}


class HttpProbe:
    """One URL. Each run has connections of its own, and neither a proxy nor cookies."""

    def __init__(self, config: HttpConfig, resolver: Resolver = SYSTEM_RESOLVER, *, keeps_body: bool = False) -> None:
        self._config = config
        self._url = parse_url(config.url)
        self._judge = Judge(config.expect)
        self._keeps_body = keeps_body or self._judge.needs_body
        self._max_redirects = config.max_redirects if config.method in _FOLLOWING else 0
        self._resolver = resolver

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._ask, deadline_s)

    async def _ask(self, watch: Watch) -> Outcome:
        return self._judge.outcome(await self.answer(watch), watch)

    async def answer(self, watch: Watch) -> HttpAnswer:
        """The answer after all redirects, not judged yet. Raises ProbeFailedError and OSError."""
        secrets = self._config.secrets()
        headers = self._config.headers | secrets
        url = self._url
        for _ in range(self._max_redirects + 1):
            answer = await self._exchange(url, headers, watch)
            if answer.redirect is None:
                return answer
            came_from, url = url, _next(url, answer.redirect)
            watch.note(f"{answer.status} from {came_from.shown} to {url.shown}")
            if secrets and (came_from.scheme, url.scheme) == ("https", "http"):
                raise ProbeFailedError(FORBIDDEN_TARGET, f"{url.shown}: from https to http with credentials")
            if url.origin != self._url.origin:
                headers = {}  # for good: who was sent away and back again does not get them either
        detail = f"{url.shown}: one more than max_redirects, {self._max_redirects}"
        raise ProbeFailedError("too-many-redirects", detail)

    async def _exchange(self, url: Url, headers: dict[str, str], watch: Watch) -> HttpAnswer:
        config = self._config
        answer = HttpAnswer(
            watch,
            config.max_body_bytes,
            is_head=config.method == "HEAD",
            follows=self._max_redirects > 0,
            keeps_body=self._keeps_body,
        )
        target = Target(url.host, url.port, config.family, self._tls(url), alpn=("http/1.1",))
        async with dialled(target, answer, self._resolver, watch) as transport:
            watch.enter(Phase.FIRST_BYTE)
            transport.write(self._request(url, headers))
            await answer.heard
        return answer

    def _tls(self, url: Url) -> TlsSettings | None:
        if url.scheme != "https":
            return None
        tls = self._config.tls
        return tls if url.origin == self._url.origin else tls.model_copy(update={"server_name": None})

    def _request(self, url: Url, headers: dict[str, str]) -> bytes:
        body = self._config.body.encode()
        fields = {"Host": url.authority, **_OWN_HEADERS, **_trace_header(), **headers}
        if body or self._config.method in _WITH_BODY:
            fields["Content-Length"] = str(len(body))
        lines = [f"{self._config.method} {url.target} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _trace_header() -> dict[str, str]:
    trace = current_trace()
    return {"Traceparent": trace.traceparent} if trace is not None and trace.propagates else {}


def _next(url: Url, location: str) -> Url:
    try:
        return follow(url, location)
    except ValueError as cause:
        raise ProbeFailedError("bad-redirect", f"{url.shown} redirects to what is no URL to follow: {cause}") from cause


KIND = ProbeKind("http", HttpConfig, HttpProbe)
