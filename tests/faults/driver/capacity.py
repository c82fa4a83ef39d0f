"""How many results a second worker and archive take here and now: half of that is what the storm is made of."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.faults.driver.stand import Form, Stand
from tests.integration.worker_process import eventually

# More than a small machine takes; when it takes all of that, this is what is halved.
TOO_MANY_PER_S = 150_000
FIRST_S, WARM_S, MEASURED_S = 60.0, 5.0, 15.0
COUNTED = "fleetbeat_rollup_events_total"


def measure(folder: Path, form: Form, say: Callable[[str], None]) -> int:
    """Results that were counted and stored in a second while more came, fleet and broker on the same machine.

    The slower of worker and archive decides: what one of them falls behind with is no load that the stand carries.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with Stand(folder, 0, replace(form, results_per_s=TOO_MANY_PER_S), say) as stand:
        worker = stand.worker().start().await_ready()
        stand.start_fleet()
        eventually(lambda: worker.metric(COUNTED), "the first result counted", FIRST_S)
        eventually(stand.results_stored, "the first result stored", FIRST_S)
        time.sleep(WARM_S)
        begun, counted, stored = time.monotonic(), worker.metric(COUNTED), stand.results_stored()
        time.sleep(MEASURED_S)
        seconds = time.monotonic() - begun
        rates = [round(n / seconds) for n in (worker.metric(COUNTED) - counted, stand.results_stored() - stored)]
    shutil.rmtree(folder)
    say(f"  one worker counts {rates[0]:,} results/s here, the archive stores {rates[1]:,}")
    return min(rates)
