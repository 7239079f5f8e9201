"""Fits the learned model of a storage device to the run that it was learned from.

The rate of a full device is known as a mean over the run, which includes what a limit on the rate had saved
up while the workers started. How reads of one batch overlap with its decoding is not known from any of its
figures. One figure of the model (the rate of a full device, else the time of a request) is therefore changed
until a replay takes as long as the run did.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Final

from pipeprof.devices import StorageModel
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import LEARNED
from pipeprof.simulate.predict import replayed_rate

ROUNDS: Final = 3
CLOSE: Final = 0.005
"""Error of a replay, as a logarithm, that is tolerated."""
MOST: Final = log(1.25)
"""Largest change of a request's time, as a logarithm: what differs by more is not an error of the device's
model. For a full device's rate it is what a limit can have saved up."""
STEPS: Final = 400
"""Measured steps of a replay for this: from a longer run this many are drawn."""
_LEAST_EFFECT: Final = 0.1
"""Growth of the throughput with the figure, both as logarithms, below which the figure does not matter."""


def with_fitted_device(demands: Demands) -> Demands:
    """Return the demands with the model of their device, if it was learned, fitted to the run."""
    measured = demands.throughput
    if demands.measured.storage.name != LEARNED or not measured:
        return demands
    change, effect, most = 0.0, 1.0, _most(demands, measured)
    error = _error(demands, change, measured)
    best = abs(error), change
    for _ in range(ROUNDS):
        if abs(error) <= CLOSE:
            break
        tried = max(-most, min(most, change - error / effect))
        if tried == change:
            break
        now = _error(demands, tried, measured)
        effect = (now - error) / (tried - change)
        change, error = tried, now
        best = min(best, (abs(error), change))
        if effect < _LEAST_EFFECT:
            break
    return _changed(demands, best[1])


def _most(demands: Demands, measured: float) -> float:
    """Return the largest change: of a rate, what a limit had saved up before a run of that length."""
    if not demands.device_full:
        return MOST
    seconds = float(demands.batches.samples[demands.measured_rows].sum()) / measured
    return min(MOST, CLOSE + demands.measured.storage.burst_s / max(seconds, 1e-3))


def _error(demands: Demands, change: float, measured: float) -> float:
    """Return the logarithm of a replay's throughput over the measured one."""
    return log(max(replayed_rate(_changed(demands, change), STEPS), 1e-9) / measured)


def _changed(demands: Demands, change: float) -> Demands:
    if not change:
        return demands
    storage = _faster(demands.measured.storage, exp(change), demands.device_full)
    return replace(demands, measured=replace(demands.measured, storage=storage))


def _faster(model: StorageModel, factor: float, full: bool) -> StorageModel:
    if full:
        return replace(model, bandwidth_bytes_per_s=model.bandwidth_bytes_per_s * factor)
    return replace(model, latency_ns=round(model.latency_ns / factor))
