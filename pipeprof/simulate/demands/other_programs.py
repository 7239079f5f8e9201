"""Share of the cores that other programs took while a run was recorded.

A worker that is runnable and has no core waits for its own siblings or for another program's work. The
siblings are known: what a replay on idle cores does not explain of the waiting is the neighbours'. It is
bounded by what others were seen to use of the cores: a worker that sleeps often, on a disk, also waits a
little each time that it wakes, and no program's work is in that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from pipeprof.analyse.ledger.attribution import Attribution, attribute
from pipeprof.errors import InconclusiveError
from pipeprof.graph import Event
from pipeprof.record.reader import Run
from pipeprof.simulate.demands.fitted_device import with_fitted_device
from pipeprof.simulate.demands.loader import Demands, read_demands
from pipeprof.simulate.engine import Walked, walk
from pipeprof.simulate.sampling import Draw, draw

MOST: Final = 64.0
ROUNDS: Final = 8
STEPS: Final = 300
"""Steps of a replay that is to show how long batches wait for a core."""


def open_run(run: Run, attribution: Attribution | None = None, loader: int | None = None) -> Demands:
    """Read the demands of one loader of a run, with the other programs that ran at the same time, and the
    model of its storage, if that was learned, fitted to it.

    `attribution` saves attributing the run again. Raises `InconclusiveError` if nothing was measured.
    """
    attribution = attribution or attribute(run)
    if attribution is None:
        problem = f"{run.directory} holds no measured step"
        raise InconclusiveError(problem, "measure 50 or more to predict from")
    return with_fitted_device(with_neighbours(read_demands(run, attribution, loader)))


def with_neighbours(demands: Demands) -> Demands:
    """Find the number of neighbours with which a replay waits for cores as long as the run did."""
    if not demands.host.core_waiting or demands.host.core_waiting == 1.0:  # nothing waited, or nothing ran
        return demands
    steps = min(demands.steps, STEPS)
    drawn = draw(demands, demands.measured, steps, seed=0)

    def waiting(neighbours: float) -> float:
        return _waiting(walk(replace(demands.measured, neighbours=neighbours), [drawn])[0], drawn)

    low, high = 0.0, _most(demands)
    if waiting(low) >= demands.host.core_waiting:
        return demands
    for _ in range(ROUNDS):
        # small numbers matter most: the middle of the squares, not of the numbers
        middle = ((low**0.5 + high**0.5) / 2) ** 2
        low, high = (middle, high) if waiting(middle) < demands.host.core_waiting else (low, middle)
    middle = (low + high) / 2
    seen, explained = demands.host.core_waiting, waiting(middle)
    # of a share w of the runnable time w / (1 - w) was waited for each unit of CPU time
    left = max(0.0, seen / (1 - seen) - explained / (1 - explained))
    batches = replace(demands.batches, waking=demands.batches.make_cpu * left)
    worst = demands.if_full
    if worst is not None:
        same = replace(worst.batches, waking=batches.waking)
        worst = replace(worst, batches=same, measured=replace(worst.measured, neighbours=middle))
    measured = replace(demands.measured, neighbours=middle)
    return replace(demands, batches=batches, measured=measured, if_full=worst)


def _most(demands: Demands) -> float:
    """Return the neighbours that would use as much of the cores as others were seen to.

    n of them with r runnable tasks of ours get n / (n + r) of C cores, and no more than one each.
    """
    others, own, cores = demands.host.other_cores, demands.host.own_cores, demands.measured.cores
    if others is None or own is None or others >= cores:
        return MOST
    runnable = own / max(1e-3, 1 - (demands.host.core_waiting or 0.0))
    return min(MOST, max(others, others * runnable / (cores - others)))


def _waiting(walked: Walked, drawn: Draw) -> float:
    """Return the waiting for a core of a simulated run, as `Host.core_waiting` does of a recorded one."""
    made = walked.epoch * drawn.batches_per_epoch + walked.seq
    wall = walked.times[Event.FINISH] - walked.times[Event.START]
    cpu = np.asarray(drawn.cpu)[made] + np.asarray(drawn.read_cpu)[made]
    away = walked.reading_ns + np.asarray(drawn.away)[made]
    waited = np.maximum(wall - cpu - away, 0.0)
    runnable = float((waited + cpu).sum())
    return float(waited.sum()) / runnable if runnable else 0.0
