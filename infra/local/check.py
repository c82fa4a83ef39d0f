"""`fleetbeat up --check`: a bounded run of the whole stack, judged by the oracle."""

import json
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from infra import InfraError
from infra.local.children import Child
from infra.local.options import UpOptions
from infra.local.signals import StopAskedError, StopSwitch
from infra.local.stack import Stack
from infra.oracle.agreement import await_agreement
from infra.oracle.judge import Verdict, judge
from infra.oracle.ledger import Ledger, read_beats, read_ledger
from infra.oracle.liveness import judge_liveness
from infra.oracle.objectives import read_promises
from infra.oracle.sources import Sql, Views
from infra.oracle.watch import Watch, Watched
from infra.progress import Board
from infra.state import StateFolder

AGREED, DIFFERS, COULD_NOT_RUN = 0, 1, 2
# The script's deaths take a while to be seen, and a lost zone to be back: see infra/demo/script.yaml.
SHORTEST_S = 46.0
# So long after the end of a minute its slices are sealed and its row is written: lateness 10 s and a little more.
MINUTE_SETTLES_S = 14.0
FLEET_STARTS_S = 3.0
FLEET_GRACE_S = 30.0
AGREE_TIMEOUT_S = 40.0


def run_check(options: UpOptions) -> int:
    """Exit status: 0 when everything agrees, 1 when something differs, 2 when it could not run or was stopped."""
    begun = time.monotonic()
    board = Board(sys.stderr)
    folder = options.state if options.state is not None else Path(tempfile.mkdtemp(prefix="fleetbeat-check-"))
    try:
        _expect_empty(folder)
        verdict, ledger = _run(options, folder, board)
    except InfraError as cause:
        board.say(f"fleetbeat: the check could not run: {cause}")
        _say_where(folder, board)
        return COULD_NOT_RUN
    except StopAskedError:
        board.say("fleetbeat: the check was stopped")
        return COULD_NOT_RUN
    if verdict.agree and options.state is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _say_where(folder, board)
    print(json.dumps(report(verdict, ledger, time.monotonic() - begun)), flush=True)
    return AGREED if verdict.agree else DIFFERS


def _say_where(folder: Path, board: Board) -> None:
    if (folder / "logs").is_dir():
        board.say(f"data and logs are in {folder}")


def _expect_empty(folder: Path) -> None:
    """Every row counts, so there must be none yet. Raises InfraError."""
    if folder.is_dir() and any(folder.iterdir()):
        raise InfraError(f"--state {folder}: not empty; expected an empty or new folder")


def _run(options: UpOptions, folder: Path, board: Board) -> tuple[Verdict, Ledger]:
    with ExitStack() as cleanup:
        state = cleanup.enter_context(StateFolder(folder))
        switch = cleanup.enter_context(StopSwitch())
        stack = Stack(options, state.path, board)
        cleanup.callback(board.settle)
        cleanup.callback(stack.stop)
        cleanup.callback(switch.stopping, stack.kill)
        stack.start()
        promises = read_promises(options.objectives_file)  # now, since the worker says best what is wrong with a file
        duration_s = options.duration_s if options.duration_s is not None else lasts_s(time.time())
        views, sql, guest = Views(stack.addresses.views), Sql(stack.addresses.sql), stack.addresses.node_id
        with Watch(stack.addresses.views) as watch:
            fleet = stack.start_fleet(duration_s=duration_s, ledger=state.path / "ledger")
            _await_fleet(stack, fleet, board, duration_s)
        stack.stop_agent()  # what it counts must stand still while it is compared
        ledger = read_ledger(state.path / "ledger")
        watched = Watched(read_beats(state.path / "ledger"), watch.looks, guest)
        known = f"{ledger.events} events and {len(ledger.requests.ts)} counted requests in the ledger"
        board.mark("oracle", "starting", f"{known}, {len(watch.looks)} looks; comparing")

        def compare() -> Verdict:
            verdict = judge(ledger, promises, views, sql, guest)
            judge_liveness(verdict, watched, views, sql)
            return verdict

        verdict = await_agreement(compare, stack.raise_failure, timeout_s=AGREE_TIMEOUT_S)
        board.mark("oracle", "done" if verdict.agree else "failed", "; ".join(sorted(verdict.failed_checks)))
        return verdict, ledger


def lasts_s(now_s: float) -> float:
    """How long the fleet sends so that at least one minute of its events is over and settled when it ends."""
    first_end_s = ((now_s + FLEET_STARTS_S) // 60 + 1) * 60
    return max(SHORTEST_S, first_end_s + MINUTE_SETTLES_S - now_s)


def _await_fleet(stack: Stack, fleet: Child, board: Board, duration_s: float) -> None:
    begun = time.monotonic()

    def sending() -> str | None:
        if fleet.poll() == 0:
            return None
        stack.raise_failure()
        board.status(f"the fleet sends for {duration_s:.0f} s: {time.monotonic() - begun:.0f} s are over")
        return "it still sends"

    fleet.await_ready(sending, duration_s + FLEET_GRACE_S)
    stack.release(fleet)
    board.mark(fleet.name, "done")
    board.status("")


def report(verdict: Verdict, ledger: Ledger, seconds: float) -> dict[str, object]:
    """The figures as one JSON object."""
    return {
        "name": "up-check",
        "agree": verdict.agree,
        "events": ledger.events,
        "heartbeats": len(ledger.heartbeat_ids),
        "results": len(ledger.result_ids),
        "slices_compared": verdict.slices_compared,
        "minutes_compared": verdict.minutes_compared,
        "late": verdict.late,
        "p99_worst_relative_error": round(verdict.p99_worst_relative_error, 5),
        "nodes_compared": verdict.nodes_compared,
        "nodes_down_seen": verdict.nodes_down_seen,
        "down_latest_ms": verdict.down_latest_ms,
        "stalest_look_ms": verdict.stalest_look_ms,
        "false_downs": verdict.false_downs,
        "nodes_gone_seen": verdict.nodes_gone_seen,
        "alarms": verdict.alarms,
        "outages": verdict.outages,
        "zones_unclear": verdict.zones_unclear,
        "ignored": verdict.ignored,
        "missing": verdict.missing,
        "doubled": verdict.doubled,
        "foreign": verdict.foreign,
        "differences": verdict.differences,
        "mismatches": verdict.mismatches,
        "seconds": round(seconds, 1),
        "seed": ledger.seed,
    }
