"""Services that count their own requests: which nodes do, and what each has counted when a window of time is over."""

import numpy as np

from agents.simulate import outcomes
from agents.simulate.rows import COUNT, NOTHING_COUNTED, OK, REQUEST, Counted, Flags, Ints
from agents.simulate.script import Script, Weather


class Counters:
    """Every process that counts; it lives on a node of its region and has that node's boots and numbers.

    The requests are drawn apart from all else: a seed gives the same probes with and without them.
    """

    def __init__(self, script: Script, nodes: int, seed: int, start_ms: int) -> None:
        """`start_ms` is that of the fleet: windows begin at multiples of their length in UTC."""
        self._counting = script.counting
        self._start_ms = start_ms
        self._rng = np.random.Generator(np.random.SFC64([seed, 1]))
        self.node, self.series = _places(script, nodes)
        probed: dict[tuple[str, str, str], int] = {}
        for index, one in enumerate(script.series):
            probed.setdefault((one.service, one.endpoint, one.region), index)
        self._behaves_as = np.array([probed[one.service, one.endpoint, one.region] for one in script.counted], np.int64)
        unmeasured = () if self._counting is None else self._counting.unmeasured
        self._measured = np.array([one.service not in unmeasured for one in script.counted], np.bool_)

    @property
    def records_per_s(self) -> float:
        """Counts that all processes send a second of event time."""
        return 0.0 if self._counting is None else len(self.node) * 1_000 / self._counting.window_ms

    def due(self, now_ms: int, end_ms: int, up: Flags, weather: Weather) -> Counted:
        """What is counted in the windows that end in this stretch of event time, by the nodes that are up."""
        if self._counting is None or not len(self.node):
            return NOTHING_COUNTED
        window_ms = self._counting.window_ms
        first = -(-max(self._start_ms + now_ms, self._start_ms + window_ms) // window_ms)
        ends = range(first * window_ms, self._start_ms + end_ms, window_ms)
        return Counted.joined([self._window(end, up[self.node], weather) for end in ends])

    def _window(self, over_ms: int, alive: Flags, weather: Weather) -> Counted:
        assert self._counting is not None  # noqa: S101 - for the type
        series = self.series[alive]
        window_ms, each = self._counting.window_ms, self._counting.per_s / len(self.series)
        rows = np.zeros(len(series), COUNT)
        rows["ts_ms"] = over_ms - window_ms
        rows["window_ms"] = window_ms
        rows["node"] = self.node[alive]
        rows["series"] = series
        rows["total"] = self._rng.poisson(each * window_ms / 1_000, len(series))
        rows["measured"] = self._measured[series]
        latency_us, outcome = outcomes.draw(self._rng, weather, np.repeat(self._behaves_as[series], rows["total"]))
        requests = np.zeros(len(outcome), REQUEST)
        requests["latency_us"] = latency_us
        requests["success"] = outcome == OK
        return Counted.of(rows, requests)


def _places(script: Script, nodes: int) -> tuple[Ints, Ints]:
    """(node, counted series) of all that is counted; a region whose nodes are few has several processes on one."""
    if script.counting is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    regions, processes = len(script.regions), script.counting.processes
    laps = max(1, nodes // regions)  # nodes of a region, of which those of region r are r, r + regions, …
    services = {name: place for place, name in enumerate(script.counting.services)}
    here = [
        ((services[one.service] * processes + process) % laps * regions + index % regions, index)
        for index, one in enumerate(script.counted)
        for process in range(processes)
    ]
    node, series = np.array(here, np.int64).reshape(-1, 2).T
    there = node < nodes
    return node[there], series[there]
