"""What may stand below `scrapes` in the agent's file."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agents.fields import Labels, Name, Seconds
from agents.probes.http_settings import Headers, SecretFiles
from agents.probes.resolver import Family
from agents.probes.trust import TlsSettings
from agents.probes.url import parse_url
from agents.targets.settings import HttpSdFile

# A record of request counts has a window of at most so long.
MAX_WINDOW_S = 10
_PATH = "/metrics"
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,254}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,254}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def check_target(text: str) -> str:
    """The URL of an exporter; HOST:PORT alone is http and /metrics. Raises ValueError."""
    url = text if "://" in text else f"http://{text}{_PATH}"
    parse_url(url)
    return url


def _check_metric(text: str) -> str:
    if not _METRIC.fullmatch(text):
        raise ValueError("expected the name of a metric: letters, digits, _ and :, no digit first")
    return text


def _check_label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("expected the name of a label: letters, digits and _, no digit first")
    return text


def _check_regex(text: str) -> str:
    from agents.probes.regex import compiled  # noqa: PLC0415 - RE2 only for those who have a regex

    compiled(text)
    return text


def _check_pattern(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("expected a path that begins with /; its last part may have * and ?")
    if any(mark in str(Path(text).parent) for mark in "*?["):
        raise ValueError("expected * and ? in the last part of the path only")
    return text


Metric = Annotated[str, AfterValidator(_check_metric)]
LabelName = Annotated[str, AfterValidator(_check_label)]
Regex = Annotated[str, Field(max_length=1_024), AfterValidator(_check_regex)]
Patterns = Annotated[dict[LabelName, Regex], Field(min_length=1, max_length=16)]
TargetUrl = Annotated[str, AfterValidator(check_target)]
FilePattern = Annotated[str, AfterValidator(_check_pattern)]


class RequestsFile(_Strict):
    """A metric that counts requests, by the name it has on the page; of a histogram without `_bucket`."""

    counter: Metric | None = None
    histogram: Metric | None = None
    unit: Literal["s", "ms", "us"] = "s"
    service: Name | None = None
    endpoint: Name | None = None
    endpoint_label: LabelName | None = None
    max_endpoints: Annotated[int, Field(ge=1, le=10_000)] = 100
    where: Patterns | None = None
    good: Patterns | None = None
    bad: Patterns | None = None
    required: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.counter is None) == (self.histogram is None):
            raise ValueError("expected either counter or histogram")
        if self.good is not None and self.bad is not None:
            raise ValueError("has good and bad; expected one of them: what it does not match is the other")
        if self.histogram is not None and self.histogram.endswith(("_bucket", "_sum", "_count")):
            raise ValueError(f"histogram {self.histogram}; expected its name without _bucket, _sum and _count")
        return self

    @property
    def metric(self) -> str:
        """The name, whichever it is."""
        return self.counter or self.histogram or ""


class RefreshedSdFile(HttpSdFile):
    """A URL that answers as Prometheus' `http_sd_configs` expects it, asked every `refresh_s`."""

    refresh_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 60


class ScrapeFile(_Strict):
    """Exporters that are asked alike. `requests` says what is counted; without it only whether they answer."""

    name: Name
    service: Name
    endpoint: Name | None = None
    every_s: Seconds = 10
    timeout_s: Seconds | None = None
    impact: Literal["P0", "P1", "P2"] | None = None
    labels: Labels = {}
    targets: Annotated[list[TargetUrl], Field(max_length=100_000)] = []
    target_files: Annotated[list[FilePattern], Field(max_length=32)] = []
    http_sd: RefreshedSdFile | None = None
    headers: Headers = {}
    header_files: SecretFiles = {}
    family: Family = "any"
    tls: TlsSettings = TlsSettings()
    gzip: bool = True
    max_body_bytes: Annotated[int, Field(ge=1_024, le=64 << 20)] = 8 << 20
    max_series: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    requests: Annotated[list[RequestsFile], Field(max_length=64)] = []

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if not (self.targets or self.target_files or self.http_sd):
            raise ValueError("has nothing to scrape; expected targets, target_files or http_sd")
        if self.timeout_s is not None and self.timeout_s > self.every_s:
            raise ValueError(f"timeout_s {self.timeout_s:g}; expected at most every_s, {self.every_s:g}")
        if self.requests and self.every_s > MAX_WINDOW_S:
            raise ValueError(
                f"every_s {self.every_s:g}; expected at most {MAX_WINDOW_S} where requests are counted: "
                "a window is no longer"
            )
        return self
