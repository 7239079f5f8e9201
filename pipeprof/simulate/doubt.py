"""How sure a prediction is, and what it rests on: refusals, stated extrapolations, the width of intervals."""

from __future__ import annotations

from math import log2, sqrt
from typing import Final

from pipeprof.errors import InconclusiveError
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.draw import batch_ratio
from pipeprof.simulate.knobs import Knobs

QUANTILE: Final = 1.645
"""Standard errors to each side of an interval that holds nine of ten."""
MODEL_ERROR: Final = 0.03
"""Relative error that remains when nothing is changed: the clocks, the scheduler, the next run's luck."""
NEIGHBOURS_ERROR: Final = 0.2
"""Times the neighbours' share of the runnable: others come and go."""
WORTH_TELLING: Final = 0.2
"""Runnable tasks of other programs, on average, from which on they are worth a word and a fix."""
PER_DOUBLING: Final = 0.02
"""Added, in quadrature, for each doubling of workers, batch size or cores away from the recorded ones."""
OTHER_DEVICE: Final = 0.02
"""Added for a storage device or access pattern that was not the recorded one."""


def stated(demands: Demands, knobs: Knobs) -> tuple[str, ...]:
    """How the question goes beyond the run; raises `InconclusiveError` where it goes beyond any answer."""
    measured = demands.measured
    storage_asked = knobs.storage != measured.storage or knobs.access != measured.access
    if (storage_asked or knobs.cache_share != measured.cache_share) and not demands.storage_observed:
        raise InconclusiveError(
            "this run cannot say what other storage would give: no read was observed in it",
            "record one in which the data set opens its files in Python, or mark its reads",
        )
    found = list(demands.notes)
    if knobs.cores > measured.cores:
        found.append(f"{knobs.cores:g} cores: this machine has {measured.cores:g}; more are extrapolated")
    if (measured.workers == 0) != (knobs.workers == 0):
        known = "no worker" if measured.workers == 0 else "workers"
        found.append(f"the run was recorded with {known}: what handing a batch over costs was not observed")
    if demands.computes_on_cpu and knobs != measured:
        found.append("computing is on the CPU: it is taken to use all cores, in competition with the workers")
    if knobs.neighbours >= WORTH_TELLING:
        taken = knobs.neighbours / (knobs.neighbours + knobs.cores)
        found.append(f"other programs competed for the cores ({taken:.0%}), and are taken to go on")
    if knobs.workers > 4 * max(1, measured.workers):
        found.append(
            f"{knobs.workers} workers from a run with {measured.workers}: far from what was measured"
        )
    if abs(log2(batch_ratio(demands, knobs))) > 1:
        found.append("the batch size is far from the recorded one: computing is taken as proportional to it")
    if knobs.pin_memory and not measured.pin_memory:
        found.append("the pin thread was not observed: its copy is taken as one core's")
    if knobs.ranks * knobs.nodes > 1:
        found.append(
            f"{knobs.ranks * knobs.nodes} ranks were not measured: each is taken to be like this one, "
            "and waiting for each other in all-reduce is left out"
        )
    if len(demands.measured_rows) < 20:
        found.append(f"only {len(demands.measured_rows)} batches after warm-up: their spread is hardly known")
    return tuple(found)


def relative_error(demands: Demands, knobs: Knobs, steps: int, busy: float) -> float:
    """Half width of the throughput's interval, relative to it."""
    measured = demands.measured
    distance = abs(log2(max(1, knobs.workers) / max(1, measured.workers)))
    distance += abs(log2(batch_ratio(demands, knobs))) + abs(log2(knobs.cores / measured.cores))
    distance += 1.0 * ((measured.workers == 0) != (knobs.workers == 0)) + log2(knobs.ranks * knobs.nodes)
    other = knobs.storage != measured.storage or knobs.access != measured.access
    crowd = max(knobs.neighbours, measured.neighbours)
    terms = [
        NEIGHBOURS_ERROR * crowd / (crowd + knobs.cores),
        MODEL_ERROR,
        PER_DOUBLING * distance,
        OTHER_DEVICE * other,
        QUANTILE * sampling_error(demands, steps),
    ]
    # an accelerator that is always busy sets the pace whatever the loader's demands are
    return sqrt(sum(term**2 for term in terms)) * max(0.25, 1.0 - busy)


def sampling_error(demands: Demands, steps: int) -> float:
    """Standard error of the mean work of a batch, both of the recorded and of the predicted ones."""
    batches, rows = demands.batches, demands.measured_rows
    work = (batches.make_cpu + batches.blocked + batches.receive + batches.loop)[rows]
    mean = float(work.mean())
    if mean <= 0:
        return 0.0
    return float(work.std()) / mean * sqrt(1 / len(rows) + 1 / max(1, steps))
