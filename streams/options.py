"""What a worker is asked for, and what of it cannot be meant."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from schemas.kafka import Brokers
from streams.core.routing import AddressError, parse_address
from streams.sql.client import AddressError as UrlError
from streams.sql.client import Endpoint

# Of plain series with a name of their own: half of the numbers that rows of tables have room for.
MOST_SERIES = 500_000
MOST_NODES = 100_000_000
USUAL_SERIES = 250_000
SignatureMode = Literal["off", "check", "require"]
SIGNATURE_MODES = get_args(SignatureMode)
HISTORY_VARIABLE = "FLEETBEAT_HISTORY"  # so that no password stands on a command line


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `fleetbeat worker` was asked for."""

    brokers: Brokers
    objectives: Path
    listen: str = "127.0.0.1:8080"
    state: Path = Path(".fleetbeat/worker")
    nodes_max: int = 2_500_000
    nodes_new_per_minute: int = 500_000
    series_max: int = USUAL_SERIES
    advertise: str | None = None
    stall_after_s: float = 60.0
    live: tuple[str, ...] = ()
    history: str | None = None
    signatures: str = "off"
    signing_keys: Path | None = None
    log_level: str = "info"


class OptionError(ValueError):
    """An option whose value cannot be meant."""


class CannotStartError(RuntimeError):
    """The machine refuses something that the worker needs, such as a folder or a port."""


def check_options(options: WorkerOptions, objectives: Collection[str]) -> str | None:
    """The address to advertise, if one was given. `objectives`: the ids there are. Raises OptionError."""
    try:
        advertised = None if options.advertise is None else parse_address(options.advertise)
    except AddressError as cause:
        raise OptionError(f"--advertise: value {options.advertise!r}: {cause}") from None
    _check_numbers(options)
    for name in options.live:
        if name not in objectives:
            raise OptionError(
                f"--live: value {name!r}: no such objective in {options.objectives}; expected one of {objectives}"
            )
    if options.signatures not in SIGNATURE_MODES:
        expected = ", ".join(SIGNATURE_MODES)
        raise OptionError(f"--signatures: value {options.signatures!r}; expected one of {expected}")
    if (options.signatures == "off") != (options.signing_keys is None):
        raise OptionError(
            f"--signatures {options.signatures} and --signing-keys {options.signing_keys}; "
            "expected check or require with a file of keys, or neither"
        )
    try:
        if options.history is not None:
            Endpoint.parse(options.history)
    except UrlError as cause:
        raise OptionError(f"--history: {cause}") from None
    return advertised


def _check_numbers(options: WorkerOptions) -> None:
    if not options.stall_after_s > 0:
        raise OptionError(f"--stall-after: value {options.stall_after_s}; expected seconds, more than 0")
    for option, value, most in (
        ("nodes-max", options.nodes_max, MOST_NODES),
        ("nodes-new-per-minute", options.nodes_new_per_minute, MOST_NODES),
        ("series-max", options.series_max, MOST_SERIES),
    ):
        if not 0 < value <= most:
            raise OptionError(f"--{option}: value {value}; expected 1 to {most}")
