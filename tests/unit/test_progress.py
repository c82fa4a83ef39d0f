"""What is shown while processes run, and that nothing hangs on its being seen."""

import os
from contextlib import suppress

from infra.progress import Board


def test_a_closed_window_does_not_keep_anybody_from_going_on() -> None:
    terminal, shell = os.openpty()
    out = os.fdopen(shell, "w", encoding="utf-8")
    board = Board(out)
    board.mark("worker", "ready")
    os.close(terminal)
    board.mark("worker", "stopping")
    board.say("a line")
    board.status("a status")
    board.settle()
    board.mark("broker", "stopped")
    board.settle()
    with suppress(OSError):  # what it could not write before it cannot write now
        out.close()
