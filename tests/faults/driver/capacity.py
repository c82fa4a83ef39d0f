"""How many results a second one worker counts here and now: half of that is what the storm is made of."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.faults.driver.stand import Form, Stand
from tests.integration.worker_process import eventually

# More than a worker counts on a small machine; when it counts all of that, this is what is halved.
TOO_MANY_PER_S = 150_000
WARM_S, MEASURED_S = 5.0, 10.0
COUNTED = "fleetbeat_rollup_events_total"


def measure(folder: Path, form: Form, say: Callable[[str], None]) -> int:
    """Results counted in a second while more come, with fleet, broker and archive beside it on the same machine."""
    shutil.rmtree(folder, ignore_errors=True)
    with Stand(folder, 0, replace(form, results_per_s=TOO_MANY_PER_S), say) as stand:
        worker = stand.worker().start().await_ready()
        stand.start_fleet()
        eventually(lambda: worker.metric(COUNTED), "the first result")
        time.sleep(WARM_S)
        begun, before = time.monotonic(), worker.metric(COUNTED)
        time.sleep(MEASURED_S)
        counted = worker.metric(COUNTED) - before
        capacity = round(counted / (time.monotonic() - begun))
    shutil.rmtree(folder)
    say(f"  one worker counts {capacity:,} results/s here")
    return capacity
