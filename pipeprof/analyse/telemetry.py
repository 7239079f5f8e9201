"""Telemetry of a run's measured window, and what the hypervisor took of its batches."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.passes import Ints, Window
from pipeprof.record.names.sensors import (
    CPU_MACHINE,
    CPU_MAIN,
    CPU_WORKERS,
    STEAL,
    SensorName,
    WorkerState,
    gpu_of,
    state_of,
)
from pipeprof.record.reader import Run
from pipeprof.record.telemetry import pieces, read_sensors, sensors_of

Values = npt.NDArray[np.float64]

MOST_STOLEN: Final = 0.95
WAITING: Final[tuple[WorkerState, ...]] = ("disk", "lock", "socket", "sleep", "pipe")
"""States of a worker that is off its core for a known reason (`measure.worker_state`)."""


class Sensed(NamedTuple):
    """Means over a window; None, or missing, if not observed."""

    own_cores: float | None
    """Cores that the run's processes kept busy."""
    other_cores: float | None
    """Cores that everything else on the machine kept busy."""
    states: dict[WorkerState, float]
    """Shares of `WAITING` among the looks at workers that were off their core while making a batch."""
    means: dict[SensorName, float]
    """Mean of each sensor."""


def sense(run: Run, window: Window) -> Sensed:
    """Read the telemetry of `window`."""
    means, states = _means(run, window)
    known = [means[name] for name in (CPU_MAIN, CPU_WORKERS) if name in means]
    own = sum(known) if known else None
    machine = means.get(CPU_MACHINE)
    others = None if own is None or machine is None else max(0.0, machine - own)
    waiting = {state: states[state] for state in WAITING if state in states}
    total = sum(waiting.values())
    shares = {state: share / total for state, share in waiting.items()} if total else {}
    return Sensed(own, others, shares, means)


def trained_gpu(run: Run) -> str | None:
    """Return the driver's name of the GPU that trained: NVML counts all, CUDA those that the program may see.

    None if it is not known.
    """
    seen = [gpu for sensor in sensors_of(run) if (gpu := gpu_of(sensor, "utilization")) is not None]
    uuid, uuids = run.meta.accelerator.uuid, run.meta.telemetry.gpu_uuids
    same = [gpu for gpu in seen if uuid and uuids.get(gpu) == f"GPU-{uuid}"]  # CUDA leaves the prefix out
    candidates = same or seen
    return candidates[0] if len(candidates) == 1 else None


def _means(run: Run, window: Window) -> tuple[dict[SensorName, float], dict[WorkerState, float]]:
    """Return the mean of each sensor over the window's time, and the sum of each state of the workers."""
    sums: dict[SensorName, float] = defaultdict(float)
    counts: dict[SensorName, int] = defaultdict(int)
    for name, readings in pieces(run):
        mine = readings.value[window.holds(readings.time_ns) & ~np.isnan(readings.value)]
        sums[name] += float(mine.sum())
        counts[name] += len(mine)
    states: dict[WorkerState, float] = defaultdict(float)
    for name, total in sums.items():
        if (state := state_of(name)) is not None:
            states[state] += total
    return {name: total / counts[name] for name, total in sums.items() if counts[name]}, states


def with_stolen(run: Run, finish_ns: Ints, wall: Values, cpu: Values, runq: Values) -> Values:
    """Return the batches' waiting for a core with what the hypervisor took on top; ns, NaN for unknown.

    A core that was stolen for a share s of the time asked for gave 1 - s of it: s / (1 - s) was stolen for
    each unit of CPU time, by the reading after the batch's finish; at most what the batch has room for.
    """
    readings = read_sensors(run, STEAL).get(STEAL)
    if readings is None:
        return runq
    at = np.minimum(np.searchsorted(readings.time_ns, finish_ns), len(readings.time_ns) - 1)
    share = np.minimum(readings.value, MOST_STOLEN)[at]
    return np.asarray(runq + np.clip(cpu * share / (1 - share), 0, np.maximum(wall - cpu - runq, 0)))
