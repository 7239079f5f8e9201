"""The cost of observing a run, measured in the run: unprobed batches beside those before and after them.

Each block of unprobed batches is compared with its neighbours, in CPU time of the thread that made them, or
of the loop's. The figure is the median of the differences, with the interval that the order of the values
gives (a binomial's quantiles: nothing is assumed of how they are spread).

Not in it is what goes on in unprobed batches too: the threads that flush and sample, the times in a batch's
pickle, and noting when its indices left. A detailed batch now and then costs more than the median says.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pipeprof.passes import NOT_OBSERVED, Ints
from pipeprof.record.reader import Run
from pipeprof.record.schema import MAIN_PROCESS, UNPROBED_BLOCK, UNPROBED_FIRST, UNPROBED_PERIOD
from pipeprof.timeline import read_ints

FEWEST_BLOCKS: Final = 6
"""Blocks from which on the smallest and the largest difference are an interval of 95 %."""
NEEDED_BATCHES: Final = UNPROBED_FIRST + FEWEST_BLOCKS * UNPROBED_PERIOD
_MISSED: Final = 0.025
"""Chance allowed on each side of an interval."""
_EDGES: Final = 4
"""Readings of the CPU clock around a block: before its neighbours, before and after itself, after them."""

Floats = npt.NDArray[np.float64]
State = Literal["measured", "below-noise", "too-short", "not-observed"]


@dataclass(frozen=True, slots=True)
class CostPerBatch:
    """CPU time that observing costs a thread for each batch, in nanoseconds."""

    state: State
    blocks: int = 0
    """Unprobed blocks that were compared."""
    cost_ns: float | None = None
    """Median of the differences; None where it is below its own noise, or nothing was compared."""
    low_ns: float | None = None
    """Ends of its 95 % interval, where there is one. Of a cost below the noise the upper one is a bound."""
    high_ns: float | None = None


@dataclass(frozen=True, slots=True)
class OwnCost:
    """Costs of observing a run, by the run itself."""

    main: CostPerBatch
    """The loop's thread; without workers it makes the batches too."""
    workers: CostPerBatch | None
    """The workers' threads that make batches; None where there are no workers."""
    modelled_ns: float | None
    """Cost of a batch's record as it was measured on an empty one at the run's start."""
    needed_batches: int = NEEDED_BATCHES
    """Batches of one loader below which nothing can be told."""


def read_own_cost(run: Run) -> OwnCost | None:
    """Measure the cost of observing a run from its unprobed batches; None where no batch was recorded."""
    steps = read_ints(run, "steps", ("step", "loader", "unprobed", "thread_cpu_ns"))
    batches = read_ints(run, "batches", ("start_ns", "loader", "worker", "unprobed", "thread_cpu_ns"))
    if len(steps["step"]) == 0 or len(batches["worker"]) == 0:
        return None
    main = _cost(steps, steps["step"], (steps["loader"],))
    has_workers = bool((batches["worker"] != MAIN_PROCESS).any())
    workers = _cost(batches, batches["start_ns"], (batches["worker"], batches["loader"]))
    return OwnCost(main, workers if has_workers else None, run.meta.overhead.batch_ns)


def _cost(rows: dict[str, Ints], order: Ints, threads: tuple[Ints, ...]) -> CostPerBatch:
    """Compare the blocks of all threads; rows of one thread are those that agree in `threads`."""
    if (rows["unprobed"] == 1).any():
        return cost_of(differences(rows["unprobed"] == 1, rows["thread_cpu_ns"], order, threads))
    return CostPerBatch("too-short" if len(order) < NEEDED_BATCHES else "not-observed")


def differences(
    unprobed: npt.NDArray[np.bool_], thread_cpu_ns: Ints, order: Ints, threads: tuple[Ints, ...]
) -> Floats:
    """Return for each whole block how much more CPU time its neighbours took for a batch than it did."""
    sorted_rows = np.lexsort((order, *threads))
    cpu, marked = thread_cpu_ns[sorted_rows], unprobed[sorted_rows]
    which = [thread[sorted_rows] for thread in threads]
    edges = np.flatnonzero(cpu != NOT_OBSERVED)
    if len(edges) < _EDGES:
        return np.zeros(0)
    at = np.lib.stride_tricks.sliding_window_view(edges, _EDGES)
    whole = (np.diff(at, axis=1) == UNPROBED_BLOCK).all(axis=1)
    for thread in which:
        whole &= thread[at[:, 0]] == thread[at[:, -1]]
    passed = np.append(0, np.cumsum(marked))
    inside = [passed[at[:, n + 1]] - passed[at[:, n]] for n in range(_EDGES - 1)]
    whole &= (inside[0] == 0) & (inside[1] == UNPROBED_BLOCK) & (inside[2] == 0)
    taken = np.diff(cpu[at[whole]], axis=1).astype(np.float64) / UNPROBED_BLOCK
    taken = taken[(taken > 0).all(axis=1)]  # else the process is another one, with a clock of its own
    return np.asarray((taken[:, 0] + taken[:, 2]) / 2 - taken[:, 1])


def cost_of(differences_ns: Floats) -> CostPerBatch:
    """Return the median of some differences with its interval, where there are enough of them."""
    count = len(differences_ns)
    if count < FEWEST_BLOCKS:
        return CostPerBatch("too-short", count)
    values = np.sort(differences_ns)
    outside = _left_out(count)
    low, high = float(values[outside]), float(values[count - 1 - outside])
    if low <= 0:
        return CostPerBatch("below-noise", count, None, low, high)
    return CostPerBatch("measured", count, float(np.median(values)), low, high)


def _left_out(count: int) -> int:
    """Return how many values at each end lie outside of a 95 % interval of the median."""
    if count > 1000:  # the normal's quantile, which is as good there
        return int(count / 2 - 0.98 * count**0.5)
    chance, left_out = 0.0, 0
    while (chance := chance + comb(count, left_out) / 2**count) <= _MISSED:
        left_out += 1
    return max(0, left_out - 1)
