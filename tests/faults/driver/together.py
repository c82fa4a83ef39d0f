"""Many faults in one stand, judged once: the short form for CI."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.driver.group import reset_offsets
from tests.faults.driver.poison import poisons
from tests.faults.driver.processes import PARTIALS, deaths
from tests.faults.driver.senders import HOUR_MS, send_old, send_poison, send_wild
from tests.faults.driver.sharing import SESSION_S, TAKEOVER_S, keeps_all, share
from tests.faults.driver.stand import Stand
from tests.integration.worker_process import eventually


def together(stand: Stand) -> None:
    """Three named deaths among poison, old schemas and wild clocks, a freeze and a takeover, and all is read again."""
    first, second = stand.worker("first"), stand.worker("second")
    drawn = deaths(stand.rng, 3)
    stand.start_fleet()
    with _guests(stand):
        for death in drawn:
            assert death is not None
            first.start_doomed(death).await_death()
            stand.kills += 1
            stand.say(f"  killed: {death}")
        first.start().await_ready()
    stand.keep(first)
    stand.keep(second)
    second.start()
    eventually(lambda: share([first, second]), "sharing", TAKEOVER_S)
    first.pause()
    time.sleep(SESSION_S)
    eventually(lambda: keeps_all(second), "takeover", TAKEOVER_S)
    first.resume()
    stand.some_time(0.5, 3)
    stand.kill(second)
    stand.kill(first)
    reset_offsets(stand.brokers, ["probe-results", PARTIALS, "heartbeats"], HOUR_MS / 1_000)
    stand.say("  all is read again")
    first.start()


@contextmanager
def _guests(stand: Stand) -> Iterator[None]:
    """They send while the context lasts, and each kind of poison at least once."""
    ending, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            kinds = list(poisons())
            for seq in itertools.count():
                if seq >= len(kinds) and ending.is_set():
                    return
                send_wild(stand, seq)
                send_old(stand, seq)
                if seq < len(kinds):
                    send_poison(stand, kinds[seq], seq)
                time.sleep(0.1)
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    sender = threading.Thread(target=run, name="guests", daemon=True)
    sender.start()
    try:
        yield
    finally:
        ending.set()
        sender.join()
    if failures:
        raise failures[0]
