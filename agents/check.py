"""The files of this room that `fleetbeat check` knows."""

from pathlib import Path

from agents.config import AgentFile, load_agent, whole_model
from agents.simulate.config import ScriptFile, load_script
from schemas.checking import FileKind


def _agent(path: Path) -> str:
    config = load_agent(path)
    scrapes = f" and {len(config.scrapes)} scrapes" if config.scrapes else ""
    return f"an agent with {len(config.file.probes)} probes{scrapes}"


def _script(path: Path) -> str:
    load_script(path)
    return "a script for simulate"


KINDS = (
    FileKind("agent", "an agent", frozenset(AgentFile.model_fields), _agent, whole_model),
    FileKind("simulate", "a script for simulate", frozenset(ScriptFile.model_fields), _script, lambda: ScriptFile),
)
