"""The command line in a package of the agent: fleetbeat's own, which says so when a command is not for hosts."""

import sys
from importlib import import_module

LEFT_OUT = frozenset({"infra", "numpy", "streams"})
CANNOT_RUN = 2


def main() -> int:
    """Runs one command and returns its exit status."""
    try:
        # By name: it is no part of infra, but what the package is made around.
        return int(import_module("fleetbeat").main())
    except ImportError as cause:
        package = _missing(cause)
        if package not in LEFT_OUT:
            raise
        sentence = f"this command needs {package}, which is not in the agent's package; install fleetbeat with pip"
        print(f"fleetbeat: {sentence}", file=sys.stderr)
        return CANNOT_RUN


def _missing(cause: BaseException) -> str:
    """The package that was not there: perhaps a cause of the cause."""
    while not isinstance(cause, ModuleNotFoundError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return (getattr(cause, "name", None) or "").split(".")[0]


if __name__ == "__main__":
    sys.exit(main())
