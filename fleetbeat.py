"""The command line's door: which command it is, and the exit status of what goes wrong."""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType

# Commands that look at their files again at a SIGHUP.
RELOADING = frozenset({"agent", "archive", "worker"})
ROOMS = frozenset({"agents", "infra", "schemas", "streams"})
FAILED, CANNOT_RUN = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 cannot run as asked."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except Exception as cause:
        # An error of our own type is a sentence for whoever typed the command. Any other is a bug: keep its traceback.
        if type(cause).__module__.split(".")[0] not in ROOMS | {"fleetbeat_commands"}:
            raise
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return CANNOT_RUN if isinstance(cause, ValueError) else FAILED


def _run(arguments: list[str]) -> int:
    if RELOADING & set(arguments[:1]):
        with suppress(ValueError):  # in a thread, as in tests, signals are somebody else's
            signal.signal(signal.SIGHUP, _early)
    if arguments[:1] == ["agent"] and not {"--help", "-h"} & set(arguments):
        # It starts on every host, on small ones too: not even the library behind the other commands is loaded.
        try:
            agent = _load_agent()
        except ModuleNotFoundError:
            pass  # the long way says which extra is missing
        else:
            return int(agent.run_agent(agent.parse_options(arguments[1:])))
    from fleetbeat_commands import run

    return run(arguments)


def _early(*_: object) -> None:
    """One that comes before the files are read has nothing to say, and must not end a process that only starts."""


def _load_agent() -> ModuleType:
    """Its module. Raises ModuleNotFoundError."""
    # Plugins of pydantic are not searched for in all that is installed, and what is loaded is no garbage to look for.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    try:
        import agents.app
    finally:
        gc.freeze()
        gc.enable()
    return agents.app


if __name__ == "__main__":
    sys.exit(main())
