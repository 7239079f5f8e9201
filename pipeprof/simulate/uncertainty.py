"""Uncertainty of a prediction: refusals, stated extrapolations, the width of intervals."""

from __future__ import annotations

from collections.abc import Iterator
from math import log2, sqrt
from typing import Final

import numpy as np

from pipeprof import units
from pipeprof.errors import InconclusiveError
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.read import Floats
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.simulate.knobs import LEARNED, MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.sampling import batch_ratio, scalable
from pipeprof.suggest import nearest
from pipeprof.units import percent
from pipeprof.vocabulary.owners import DECODE

QUANTILE: Final = 1.645
"""Standard errors to each side of an interval that holds nine of ten."""
CLOCKS_ERROR: Final = 0.02
"""Half an interval's width, relative, that remains if a device alone sets the pace. Calibrated on the cells
of tests/benchmarks/prediction.py that read tensors, and judged on those of JPEGs, as the next."""
WORK_ERROR: Final = 0.18
"""The same of the host's work: what a sample costs in one minute and in the next. Two cores of a virtual
machine gave the same work 4 to 16% (standard deviation) more or less of themselves from run to run."""
NEIGHBOURS_ERROR: Final = 0.2
"""Relative error for each unit of the neighbours' share of the runnable: others come and go."""
WORTH_TELLING: Final = 0.2
"""Runnable tasks of other programs, on average, from which they are worth a word and a fix."""
PER_DOUBLING: Final = 0.03
"""Error added, in quadrature, for each doubling of workers, batch size or cores away from the recorded."""
OTHER_PROCESS: Final = 0.4
"""Error added if batches move from workers to the main process or back: torch computes there with as many
threads as there are cores, and collates into memory of its own instead of shared memory."""
OTHER_DEVICE: Final = 0.02
"""Part of the throughput's error for a storage device or access pattern that was not the recorded one."""
LEARNED_ERROR: Final = 0.1
"""The same for a device whose limit was learned: the kernel's own limits gave 91 to 100% of their figures."""
FRESH_ERROR: Final = 0.5
"""Relative error of the cost of fresh memory with another number of workers: the kernel zeroes pages for all.
Two workers that each made batches of 4.9 MB paid 1.05 and 1.5 times what one did; alone, two processes that
touched as much paid 0.88 to 1.20 times what one did, on two cores of a shared virtual machine (30 November
2026)."""
BLOCKS: Final = 8
"""Parts of a run whose means show how its work drifts."""
FEWEST_BATCHES: Final = 20
"""Measured batches from which their spread is known."""


def stated(demands: Demands, knobs: Knobs) -> tuple[Extrapolation, ...]:
    """List how the question goes beyond the run. Raises `InconclusiveError` if it goes beyond any answer."""
    _refuse_storage(demands, knobs)
    _refuse_owners(demands, knobs)
    if knobs.ranks * knobs.nodes > 1 and demands.world_size > 1:
        raise InconclusiveError(
            f"this run is one of {demands.world_size} ranks: its record holds its waiting for them",
            "predict several ranks or nodes from a run of one process",
        )
    beyond = [*_beyond_the_machine(demands, knobs), *_beyond_the_loader(demands, knobs)]
    useless, few = _without_effect(demands, knobs), len(demands.measured_rows)
    if few < FEWEST_BATCHES:
        useless.append(Extrapolation(f"only {few} batches after warm-up: their spread is hardly known"))
    return (*demands.notes, *beyond, *useless)


def _beyond_the_machine(demands: Demands, knobs: Knobs) -> Iterator[Extrapolation]:
    """Yield how the question goes beyond the cores and the ranks of the run."""
    measured = demands.measured
    if knobs.cores > measured.cores:
        here = units.amount(measured.cores)
        yield Extrapolation(f"cores: this machine has {here}; more are extrapolated", knobs.cores)
    if demands.computes_on_cpu and knobs != measured:
        yield Extrapolation(
            "computing is on the CPU: it is taken to use all cores, in competition with the workers"
        )
    if knobs.neighbours >= WORTH_TELLING:
        taken = knobs.neighbours / (knobs.neighbours + measured.cores)
        yield Extrapolation(
            f"assumes that other programs keep using {percent(taken)} of this machine's cores"
        )
    if knobs.ranks * knobs.nodes > 1:
        alike = (
            "ranks were not measured: each is taken to be like this one and to meet the others of its node "
            "after each step; gradients and meetings of nodes are left out"
        )
        yield Extrapolation(alike, knobs.ranks * knobs.nodes)


def _beyond_the_loader(demands: Demands, knobs: Knobs) -> Iterator[Extrapolation]:
    """Yield how the question goes beyond the workers and the batches of the run."""
    measured = demands.measured
    if (measured.workers == 0) != (knobs.workers == 0):
        known, asked = ("without workers", "with") if measured.workers == 0 else ("with workers", "without")
        yield Extrapolation(f"recorded {known}: what handing a batch over costs {asked} them is a guess")
    if knobs.workers > 4 * max(1, measured.workers):
        far = f"workers from a run with {measured.workers}: far from what was measured"
        yield Extrapolation(far, knobs.workers)
    if abs(log2(batch_ratio(demands, knobs))) > 1:
        yield Extrapolation(
            "the batch size is far from the recorded one: computing is taken as proportional to it"
        )
    if knobs.pin_memory and not measured.pin_memory:
        yield Extrapolation("the pin thread was not observed: its copy is taken as one core's")


def _without_effect(demands: Demands, knobs: Knobs) -> list[Extrapolation]:
    """List what is asked of something that the run did not show."""
    measured, useless = demands.measured, list[Extrapolation]()
    copying = knobs.link is not None or knobs.prefetch_to_device != measured.prefetch_to_device
    if (copying or knobs.pin_memory != measured.pin_memory) and not demands.batches.copy.any():
        useless.append(
            Extrapolation("no copy to the device was observed: what the question changes of it is left out")
        )
    if knobs.keep != measured.keep and DECODE.name not in scalable(demands):
        useless.append(Extrapolation("no decoding was observed: what it costs under another name stays"))
    if knobs.storage == MEMORY and _pattern_asked(demands, knobs):
        useless.append(
            Extrapolation("the data lies in memory: neither a cache nor shards change what its reads cost")
        )
    return useless


def _pattern_asked(demands: Demands, knobs: Knobs) -> bool:
    measured = demands.measured
    return knobs.cache_share != measured.cache_share or knobs.access != measured.access


def _refuse_storage(demands: Demands, knobs: Knobs) -> None:
    """Refuse questions about storage that this run cannot answer."""
    measured = demands.measured
    pattern = _pattern_asked(demands, knobs)
    if (pattern or knobs.storage != measured.storage) and not demands.place.reads_observed:
        raise InconclusiveError(
            "this run cannot say what other storage would give: no read was observed in it",
            "record one in which the data set opens its files in Python, or mark its reads",
        )
    if pattern and knobs.storage == UNKNOWN:
        raise InconclusiveError(
            "this run's storage has no cost model: what a cache or shards would save is not known",
            "say storage.tier, storage.device or storage.profile first",
        )
    if measured.cache_share == 1 and knobs.cache_share < 1:
        raise InconclusiveError(
            "every read of this run came from memory: what the device has to serve was not observed",
            "record a run with a smaller cache",
        )
    if knobs.keep != measured.keep and not (demands.place.reads_observed or DECODE.name in scalable(demands)):
        raise InconclusiveError(
            "storage.keep=decoded cannot be asked of this run: neither reading nor decoding was observed",
            "record one in which the data set opens and decodes its files in Python, or mark the stages",
        )


def _refuse_owners(demands: Demands, knobs: Knobs) -> None:
    """Refuse factors on what was not there: they would change nothing, and look like an answer."""
    known = scalable(demands) if knobs.scale else set()
    for owner in knobs.scale:
        if owner not in known:
            raise InconclusiveError(
                f"scale.{owner} cannot be asked of this run: nothing of {owner!r} was recorded in it",
                nearest(owner, known),
            )


def device_error(demands: Demands, knobs: Knobs) -> float:
    """Return the relative error of the throughput if devices set the pace."""
    other = knobs.storage != demands.measured.storage or knobs.access != demands.measured.access
    learned = knobs.storage.name == LEARNED and knobs != demands.measured
    terms = [CLOCKS_ERROR, OTHER_DEVICE * other, LEARNED_ERROR * learned, *_of_a_short_run(demands, knobs)]
    return sqrt(sum(term**2 for term in terms))


def _of_a_short_run(demands: Demands, knobs: Knobs) -> tuple[float, float]:
    """Return the errors of a full device's rate that was learned in a short time: what a limit had saved up
    counts in it, and the next batches may ask for other bytes than these did."""
    rows, asked = demands.measured_rows, demands.batches.read_bytes[demands.measured_rows]
    if knobs.storage.name != LEARNED or not (demands.device_full and demands.throughput and asked.any()):
        return 0.0, 0.0
    seconds = float(demands.batches.samples[rows].sum()) / demands.throughput
    saved_up = min(1.0, knobs.storage.burst_s / seconds) if seconds > 0 else 1.0
    sampling = float(asked.std() / asked.mean()) * sqrt(2 / len(rows))
    return saved_up, min(1.0, QUANTILE * sampling)


def work_error(demands: Demands, knobs: Knobs, steps: int) -> float:
    """Return the relative error of the host's work with a batch, in which the run's own drift shows."""
    measured = demands.measured
    distance = abs(log2(max(1, knobs.workers) / max(1, measured.workers)))
    distance += abs(log2(batch_ratio(demands, knobs))) + abs(log2(knobs.cores / measured.cores))
    distance += log2(knobs.ranks * knobs.nodes)
    crowd = max(knobs.neighbours, measured.neighbours)
    sampling, drift = spread(demands, steps)
    terms = [
        WORK_ERROR,
        NEIGHBOURS_ERROR * crowd / (crowd + knobs.cores),
        PER_DOUBLING * distance,
        OTHER_PROCESS * ((measured.workers == 0) != (knobs.workers == 0)),
        FRESH_ERROR * _fresh_share(demands) * (measured.workers != knobs.workers),
        QUANTILE * sampling,
        QUANTILE * drift,
        own_cost_error(demands),
    ]
    return sqrt(sum(term**2 for term in terms))


def _fresh_share(demands: Demands) -> float:
    """Return the share of fresh memory in the work with a batch."""
    work = float(_work(demands).mean())
    return min(1.0, demands.host.fresh.made_ns / work) if work > 0 else 0.0


def own_cost_error(demands: Demands) -> float:
    """Return the error of pipeprof's own cost that was taken off, over the work with a batch."""
    work = float(_work(demands).mean())
    return min(1.0, demands.own_error_ns / work) if work > 0 else 0.0


def spread(demands: Demands, steps: int) -> tuple[float, float]:
    """Return, of the work of a batch, relative: the standard error of its mean, here and in a run of `steps`,
    and the standard deviation of the means of a run's parts, which is what the next run may differ by."""
    work, rows = _work(demands), demands.measured_rows
    mean = float(work.mean())
    if mean <= 0:
        return 0.0, 0.0
    sampling = float(work.std()) / mean * sqrt(1 / len(rows) + 1 / max(1, steps))
    if len(work) < 2 * BLOCKS:
        return sampling, 0.0
    means = [float(part.mean()) for part in np.array_split(work, BLOCKS)]
    return sampling, float(np.std(means, ddof=1)) / mean


def _work(demands: Demands) -> Floats:
    """Return the work of each measured batch, the step's if no device is emulated for it."""
    batches = demands.batches
    work = batches.make_cpu + batches.made_away + batches.receive + batches.loop
    return (work if demands.emulated_accelerator else work + batches.compute)[demands.measured_rows]
