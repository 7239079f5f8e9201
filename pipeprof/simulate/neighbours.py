"""How much of the cores other programs took while a run was recorded.

A worker that is runnable and has no core waits for its own siblings or for somebody else's work. The siblings
are known: what a replay on idle cores does not explain of the waiting is the neighbours'. It is bounded by
what others were seen to use of the cores: a worker that sleeps often, on a disk, also waits a little each
time that it wakes, and nobody's work is in that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from pipeprof.simulate.demands import Demands, read_demands
from pipeprof.simulate.draw import Draw, draw
from pipeprof.simulate.engine import Walked, walk
from pipeprof.trace import Run

MOST: Final = 64.0
ROUNDS: Final = 8
STEPS: Final = 300
"""Steps of a replay that is to show how long batches wait for a core."""


def open_run(run: Run) -> Demands:
    """The run's demands, with the neighbours that it had. Raises as `read_demands` does."""
    return with_neighbours(read_demands(run))


def with_neighbours(demands: Demands) -> Demands:
    """Find the number of neighbours with which a replay waits for cores as long as the run did."""
    if not demands.core_waiting or demands.core_waiting == 1.0:  # nothing waited, or nothing ran
        return demands
    steps = min(demands.steps, STEPS)
    drawn = draw(demands, demands.measured, steps, seed=0)

    def waiting(neighbours: float) -> float:
        return _waiting(walk(replace(demands.measured, neighbours=neighbours), [drawn])[0], drawn)

    low, high = 0.0, _most(demands)
    if waiting(low) >= demands.core_waiting:
        return demands
    for _ in range(ROUNDS):
        # small numbers matter most: the middle of the squares, not of the numbers
        middle = ((low**0.5 + high**0.5) / 2) ** 2
        low, high = (middle, high) if waiting(middle) < demands.core_waiting else (low, middle)
    found = (low + high) / 2
    seen, explained = demands.core_waiting, waiting(found)
    # of a share w of the runnable time w / (1 - w) was waited for each unit of CPU time
    left = max(0.0, seen / (1 - seen) - explained / (1 - explained))
    batches = replace(demands.batches, waking=demands.batches.make_cpu * left)
    return replace(demands, batches=batches, measured=replace(demands.measured, neighbours=found))


def _most(demands: Demands) -> float:
    """Neighbours that would use as much of the cores as others were seen to.

    n of them beside r runnable tasks of ours get n / (n + r) of C cores, and no more than one each.
    """
    others, own, cores = demands.other_cores, demands.own_cores, demands.measured.cores
    if others is None or own is None or others >= cores:
        return MOST
    runnable = own / max(1e-3, 1 - (demands.core_waiting or 0.0))
    return min(MOST, max(others, others * runnable / (cores - others)))


def _waiting(walked: Walked, drawn: Draw) -> float:
    """As `Demands.core_waiting`, of a walked run."""
    made = walked.epoch * drawn.batches_per_epoch + walked.seq
    wall = walked.times["finish"] - walked.times["start"]
    cpu = np.asarray(drawn.cpu)[made] + np.asarray(drawn.read_cpu)[made]
    away = walked.reading_ns + np.asarray(drawn.blocked)[made]
    waited = np.maximum(wall - cpu - away, 0.0)
    runnable = float((waited + cpu).sum())
    return float(waited.sum()) / runnable if runnable else 0.0
