"""The files of this room that `fleetbeat check` knows."""

from collections.abc import Iterator
from pathlib import Path

from agents.config import AgentFile, load_agent, whole_model
from schemas.checking import FileKind


def _agent(path: Path) -> str:
    config = load_agent(path)
    scrapes = f" and {len(config.scrapes)} scrapes" if config.scrapes else ""
    return f"an agent with {len(config.file.probes)} probes{scrapes}"


def _kinds() -> Iterator[FileKind]:
    yield FileKind("agent", "an agent", frozenset(AgentFile.model_fields), _agent, whole_model)
    try:
        from agents.simulate.config import ScriptFile, load_script  # noqa: PLC0415 - not everyone has it
    except ModuleNotFoundError as cause:
        if cause.name != "numpy":
            raise
        return  # the package for hosts, which simulate nothing

    def contents(path: Path) -> str:
        load_script(path)
        return "a script for simulate"

    yield FileKind(
        "simulate", "a script for simulate", frozenset(ScriptFile.model_fields), contents, lambda: ScriptFile
    )


KINDS = tuple(_kinds())
