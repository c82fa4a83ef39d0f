"""`fleetbeat up`: starts the stack, says where it answers, stays until it is stopped or something ends."""

import sys
import time

from infra.local.check import run_check
from infra.local.children import Child, ChildFailedError
from infra.local.figures import Figures, read_figures, status_line
from infra.local.options import UpOptions
from infra.local.signals import StopAskedError, StopSwitch
from infra.local.stack import Stack
from infra.local.welcome import welcome
from infra.progress import Board
from infra.state import StateFolder

STATUS_EVERY_S = 2.0
FIRST_EVENTS_TIMEOUT_S = 60.0


def run_up(options: UpOptions) -> int:
    """Exit status: 0 after a stop by the user, 1 when a process ended; with `check` see `run_check`.

    Raises InfraError with a sentence for the user when the stack cannot start.
    """
    if options.check:
        return run_check(options)
    begun = time.monotonic()
    board = Board(sys.stdout)
    with StateFolder(options.state_folder) as state, StopSwitch() as switch:
        stack = Stack(options, state.path, board)
        try:
            stack.start()
            fleet = stack.start_fleet(duration_s=options.duration_s, ledger=None)
            _await_first_events(stack, fleet, board)
            where = stack.addresses
            state.announce({"Kafka": where.kafka, "views": where.views, "SQL": where.sql})
            board.settle()
            board.say(f"ready in {time.monotonic() - begun:.0f} s")
            board.say(welcome(where, options.state_folder, stack.agent_pid))
            return _stay(stack, fleet, board)
        except StopAskedError:
            board.settle()
            return 0
        finally:
            switch.stopping(stack.kill)
            stack.stop()
            board.settle()


def _await_first_events(stack: Stack, fleet: Child, board: Board) -> None:
    """Until views and SQL have something, so that the commands printed next have something to show."""

    def reason() -> str | None:
        stack.raise_failure()
        figures = read_figures(stack.addresses)
        if figures is None or figures.events == 0:
            return "the views have counted nothing yet"
        return None if figures.stored > 0 else "SQL has no row yet"

    fleet.await_ready(reason, FIRST_EVENTS_TIMEOUT_S)
    board.mark(fleet.name, "ready")


def _stay(stack: Stack, fleet: Child, board: Board) -> int:
    """Shows how the stack is doing until a process ends that should not."""
    before: Figures | None = None
    watching_fleet = watching_agent = True
    while True:
        if watching_fleet and fleet.poll() == 0:  # its duration is over
            watching_fleet = False
            stack.release(fleet)
            board.say("the simulated fleet has sent all it was asked to; the rest goes on until Ctrl-C")
        failure: ChildFailedError | None = stack.failure()
        if failure is not None:
            board.settle()
            board.say(f"fleetbeat: {failure}")
            return 1
        if watching_agent and (ended := stack.agent_failure()) is not None:
            watching_agent = False
            board.say(f"{ended}\nits node {stack.addresses.node_id} turns DOWN; the rest goes on until Ctrl-C")
        now = read_figures(stack.addresses)
        board.status(status_line(before, now))
        before = now
        time.sleep(STATUS_EVERY_S)
