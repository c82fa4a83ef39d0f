"""The file of `fleetbeat worker --config`, and the options that it and the command line come to together."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.kafka.settings import FilePath
from streams.core.routing import parse_address
from streams.options import HISTORY_VARIABLE, MOST_NODES, MOST_SERIES, OptionError, SignatureMode, WorkerOptions
from streams.settings.fields import KafkaFile, Listen, LogLevel, Strict, Url, check_login, given, says, with_password
from streams.settings.load import Kind, Place

_USUAL = WorkerOptions("", Path())


class LimitsFile(Strict):
    """What the worker keeps at most, over all workers of the group."""

    nodes_max: Annotated[
        int, Field(ge=1, le=MOST_NODES), says("Nodes known at once; heartbeats of more are refused.")
    ] = _USUAL.nodes_max
    nodes_new_per_minute: Annotated[
        int,
        Field(ge=1, le=MOST_NODES),
        says("New nodes taken in a minute; the others come with a later heartbeat."),
    ] = _USUAL.nodes_new_per_minute
    series_max: Annotated[
        int,
        Field(ge=1, le=MOST_SERIES),
        says("Combinations of service, endpoint, region and kind kept apart; the events of more are summed as one."),
    ] = _USUAL.series_max


class HistoryFile(Strict):
    """ClickHouse, for the past of new SLOs."""

    url: Annotated[Url, says("http://USER@HOST:PORT.")]
    password_file: Annotated[FilePath | None, says("With the user's password, which only its owner can read.")] = None

    @model_validator(mode="after")
    def _has_whose_password_it_is(self) -> Self:
        check_login(self.url, self.password_file)
        return self


class WorkerFile(Strict):
    """What `fleetbeat worker` keeps and where it answers. Whatever the command line gives counts instead."""

    kafka: KafkaFile = KafkaFile()
    objectives: Annotated[
        FilePath | None, says("The SLOs: an OpenSLO file. Needed, unless the command line names it.")
    ] = None
    state: Annotated[FilePath, says("Folder for what the worker keeps on disk.")] = str(_USUAL.state)
    listen: Annotated[Listen, says("HOST:PORT of views, health and metrics, on loopback; port 0 takes a free one.")] = (
        _USUAL.listen
    )
    advertise: Annotated[
        Annotated[str, AfterValidator(parse_address)] | None,
        says("HOST:PORT at which the other workers reach this one; without it where it listens."),
    ] = None
    limits: LimitsFile = LimitsFile()
    stall_after_s: Annotated[
        float,
        Field(gt=0, le=86_400, allow_inf_nan=False),
        says("Behind for so long without any progress, the worker ends to be started again."),
    ] = _USUAL.stall_after_s
    live: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="Objectives whose last minute is counted by the millisecond."
    )
    history: Annotated[HistoryFile | None, says(f"Without it ${HISTORY_VARIABLE}, a URL.")] = None
    signatures: Annotated[
        SignatureMode, says("`check`: count records that are not signed by their node; `require`: refuse them.")
    ] = "off"
    signing_keys: Annotated[FilePath | None, says("With `check` and `require`: a YAML file of master keys.")] = None
    log_level: Annotated[LogLevel, says("Of what is logged, the least important.")] = "info"


def _contradictions(keys: Mapping[str, Any], bad: Collection[str]) -> Iterator[tuple[Place, str]]:
    mode, signing_keys = keys.get("signatures"), keys.get("signing_keys")
    if mode in {"check", "require"} and signing_keys is None and "signing_keys" not in bad:
        yield ("signatures",), f"value {mode!r}: without signing_keys; expected a file of keys beside it"
    if mode in {None, "off"} and signing_keys is not None and "signatures" not in bad:
        yield ("signing_keys",), f"value {signing_keys!r}: with signatures off; expected check or require, or no keys"


WORKER_FILE = Kind(WorkerFile, _contradictions)

# By the names of options, the keys of the file.
WORKER_KEYS = {
    "brokers": "kafka",
    "objectives": "objectives",
    "state": "state",
    "listen": "listen",
    "advertise": "advertise",
    "nodes_max": "limits.nodes_max",
    "nodes_new_per_minute": "limits.nodes_new_per_minute",
    "series_max": "limits.series_max",
    "stall_after_s": "stall_after_s",
    "live": "live",
    "history": "history",
    "signatures": "signatures",
    "signing_keys": "signing_keys",
    "log_level": "log_level",
}


def worker_options(asked: Mapping[str, Any], file: WorkerFile) -> WorkerOptions:
    """What the command line asked for, then the environment, then the file, then the usual.

    `asked` has the names of WorkerOptions, `brokers` and `kafka_config` as they were typed. Raises OptionError, and
    what opening files raises that the settings name: DocumentError, SecretFileError, CertificateError.
    """
    typed = dict(asked)
    kafka = file.kafka.reach(typed.pop("brokers", None), typed.pop("kafka_config", None))
    values = {**_written(file), **_surroundings(), **typed}
    if isinstance(history := values.get("history"), HistoryFile):
        values["history"] = with_password(history.url, history.password_file, "history.password_file")
    if values.get("objectives") is None:
        raise OptionError("--objectives: missing; expected an OpenSLO file there, or as `objectives` in --config")
    return WorkerOptions(**{**values, "brokers": kafka})


def _surroundings() -> dict[str, Any]:
    history = os.environ.get(HISTORY_VARIABLE)
    return {"history": history} if history else {}


def _written(file: WorkerFile) -> dict[str, Any]:
    """What stands in the file, by the names of options."""
    plain = {key: key for key in WORKER_KEYS.values() if "." not in key and key != "kafka"}
    limits = {key: key for key in LimitsFile.model_fields}
    values = {**given(file, plain), **given(file.limits, limits)}
    for key in ("objectives", "state", "signing_keys"):
        if values.get(key) is not None:
            values[key] = Path(values[key])
    if "live" in values:
        values["live"] = tuple(values["live"])
    return values
