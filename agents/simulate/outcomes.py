"""How single probes and requests end: latency and outcome by the weather of their series."""

import numpy as np

from agents.simulate.rows import BROKEN, OK, REFUSED, TIMEOUT, Floats, Ints, Outcomes
from agents.simulate.script import Weather


def draw(rng: np.random.Generator, now: Weather, series: Ints) -> tuple[Floats, Outcomes]:
    """Latency in microseconds, not rounded, and outcome of one event of each of these series."""
    latency_us = np.exp(now.mu[series] + now.sigma[series] * rng.standard_normal(len(series)))
    outcome = np.full(len(series), OK, np.uint8)
    failed = np.flatnonzero(rng.random(len(series)) < now.failure_rate[series])
    outcome[failed] = rng.choice(np.array([TIMEOUT, REFUSED, BROKEN], np.uint8), len(failed))
    timeout_us = now.timeout_us[series]
    timed_out = (outcome == TIMEOUT) | (latency_us >= timeout_us)
    outcome[timed_out] = TIMEOUT
    return np.where(timed_out, timeout_us, np.maximum(1, latency_us)), outcome
