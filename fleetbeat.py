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
# What shells say of a process that Ctrl-C ended, or one that wrote where nobody reads any more, as in `| head -1`.
STOPPED, UNREAD = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 cannot run as asked, 130 and 141 cut short."""
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is told here, and not after the last moment
    except KeyboardInterrupt:
        return STOPPED
    except Exception as cause:
        if isinstance(cause, OSError) and (cut := _cut_short(cause)) is not None:
            return cut
        # An error of our own type is a sentence for whoever typed the command. Any other is a bug: keep its traceback.
        if type(cause).__module__.split(".")[0] not in ROOMS | {"fleetbeat_commands"}:
            raise
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return CANNOT_RUN if isinstance(cause, ValueError) else FAILED
    return status


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


def _cut_short(cause: OSError) -> int | None:
    """The exit status when nobody reads our output any more, or the disk is full; None for anything else."""
    import errno
    import select

    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        print(f"fleetbeat: cannot write: {cause.strerror}", file=sys.stderr)
        _give_up([stream.fileno() for stream in (sys.stdout,) if stream is not None])
        return FAILED
    if not isinstance(cause, BrokenPipeError):
        return None
    poll = select.poll()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None when it was closed from the start
        poll.register(stream, 0)
    unread = [number for number, event in poll.poll(0) if event & select.POLLERR]
    _give_up(unread)
    return UNREAD if unread else None


def _give_up(outputs: Sequence[int]) -> None:
    """What is still in buffers would fail once more when Python ends."""
    for output in outputs:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)


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
