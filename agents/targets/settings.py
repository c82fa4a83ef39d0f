"""What may stand below `targets` of a probe: a list, files, a URL, names."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agents.targets.groups import check_address

MAX_TARGETS = 100_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _is_absolute(path: Path) -> Path:
    if not path.is_absolute() or path.suffix not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"{path}; expected an absolute path to .json, .yaml or .yml; its last part may have * and ?")
    return path


def _is_http(text: str) -> str:
    from agents.probes.url import parse_url  # noqa: PLC0415 - for those who have one

    parse_url(text)
    return text


Wait = Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)]
Address = Annotated[str, AfterValidator(check_address)]
Paths = Annotated[tuple[Annotated[Path, AfterValidator(_is_absolute)], ...], Field(max_length=64)]


class HttpSdFile(_Strict):
    """A URL that answers as Prometheus' `http_sd_configs` expects it; the token's file is read for each request."""

    url: Annotated[str, AfterValidator(_is_http)]
    bearer_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Wait = 10


class DnsSdFile(_Strict):
    """Names whose records are targets. A and AAAA need a `port`, SRV brings its own."""

    names: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=254)], ...], Field(min_length=1, max_length=64)
    ]
    type: Literal["SRV", "A", "AAAA"] = "SRV"
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    timeout_s: Wait = 10

    @model_validator(mode="after")
    def _has_a_port(self) -> Self:
        if (self.type == "SRV") != (self.port is None):
            raise ValueError(f"type {self.type}, port {self.port}; expected a port for A and AAAA, and none for SRV")
        return self


class TargetsFile(_Strict):
    """All that these say together, looked at again every `refresh_s`.

    `files` are those of Prometheus' `file_sd_configs`. More than `max_targets` are none: the ones before stay.
    """

    list: Annotated[tuple[Address, ...], Field(max_length=MAX_TARGETS)] = ()
    files: Paths = ()
    http_sd: HttpSdFile | None = None
    dns: DnsSdFile | None = None
    refresh_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 60
    max_targets: Annotated[int, Field(ge=1, le=MAX_TARGETS)] = 10_000

    @model_validator(mode="after")
    def _has_some(self) -> Self:
        if not (self.list or self.files or self.http_sd or self.dns):
            raise ValueError("no targets; expected list, files, http_sd or dns")
        if len(self.list) > self.max_targets:
            raise ValueError(f"{len(self.list)} in list; expected at most max_targets, {self.max_targets}")
        return self
