"""Time that batches lost to the hypervisor, from the machine's own counter: see `measure.steal`."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.pipeline import Ints, ints
from pipeprof.trace import Run

SENSOR: Final = "host.steal"
"""Share of the CPU time asked for since the reading before."""
MOST: Final = 0.95


Values = npt.NDArray[np.float64]


def with_stolen(run: Run, finish_ns: Ints, wall: Values, cpu: Values, runq: Values) -> Values:
    """The batches' waiting for a core with what the hypervisor took on top; ns, NaN where not observed.

    A core that was stolen for a share s of the time asked for gave 1 - s of it: s / (1 - s) was stolen for
    each unit of CPU time, by the reading after the batch's finish; at most what the batch has room for.
    """
    share = _shares(run, finish_ns)
    if share is None:
        return runq
    return np.asarray(runq + np.clip(cpu * share / (1 - share), 0, np.maximum(wall - cpu - runq, 0)))


def _shares(run: Run, finish_ns: Ints) -> Values | None:
    times, shares = [], []
    for piece in run.pieces("telemetry", ("time_ns", "sensor", "value")):
        mine = piece["sensor"].cast("string").to_numpy() == SENSOR
        times.append(ints(piece["time_ns"])[mine])
        shares.append(piece["value"].to_numpy()[mine])
    if not any(len(each) for each in times):
        return None
    at, share = np.concatenate(times), np.minimum(np.concatenate(shares), MOST)
    return np.asarray(share[np.minimum(np.searchsorted(at, finish_ns), len(at) - 1)], dtype=np.float64)
