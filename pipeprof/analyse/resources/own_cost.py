"""The cost of observing a run, measured in the run by comparing unprobed batches with those before and after
them.

Each block of unprobed batches is compared with its neighbours, in CPU time of the thread that made them, or
of the loop's; if most batches are unprobed, each block of probed ones is. The figure is the median of the
differences, times the share of the batches that were probed, with the interval that the order of the values
gives (a binomial's quantiles: nothing is assumed of how they are spread). To it comes what the proxies still
do in an unprobed batch, to count it and to write it down: the median of their own times by the clock; and a
batch's share of what detailed batches, of which single spans are kept, take longer than others.

Reported separately are the calls between the proxies and torch in the loop's thread and in the workers, which
no clock of ours sees, by a model that scales with what the clocks see of unprobed batches; and what goes on
alongside the batches: the threads that flush and sample, and the times in a batch's pickle, as measured on an
empty one.
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
"""Blocks from which the smallest and the largest difference are an interval of 95 %."""
NEEDED_BATCHES: Final = UNPROBED_FIRST + FEWEST_BLOCKS * UNPROBED_PERIOD
CALLS: Final = (1.5, 0.6, 2.1)
CALLS_WITH_WORKERS: Final = (2.2, 1.5, 3.0)
CALLS_IN_WORKER: Final = (1.3, 0.5, 2.0)
"""Cost of the calls into and out of the proxies, over what the proxies' own clocks see of an unprobed batch,
and the ends between which it lies: to the loop's thread without workers and with them, and to a worker.

`tests.benchmarks.told_cost --calls` gave 1.75 [1.6, 2.0] without workers, 1.6 to 2.8 with them, and in
workers 1.4 and 1.5 with tiny batches; there JPEGs gave 3.6 [1.8, 4.0] and text 0.3 [-0.3, 1.9] (two slow
virtual cores, 1 December 2026). Pairs of November, on faster cores, and of the night before come to 0.6 and
1.1 without workers, and in workers to 0.5 to 1.2.
"""
_KEY: Final = ("loader", "epoch", "seq")
_COLUMNS: Final = ("unprobed", "thread_cpu_ns", "own_ns")
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
    """Blocks that were compared."""
    cost_ns: float | None = None
    """Median of the differences times `probed_share`, with `unprobed_ns` and `detailed_ns`; None if it is
    below its own noise, or nothing was compared."""
    low_ns: float | None = None
    """Ends of its 95 % interval, if there is one. Of a cost below the noise the upper one is a bound."""
    high_ns: float | None = None
    unprobed_ns: float | None = None
    """Part of it that unprobed batches bear too; None if that was not observed, and is not in the sum."""
    detailed_ns: float | None = None
    """Part of it that detailed batches bear, spread over all; None likewise."""
    probed_share: float = 1.0
    """Share of the thread's batches that were probed."""


@dataclass(frozen=True, slots=True)
class ModelledCost:
    """CPU time a batch by a model, in nanoseconds, with the ends between which it lies by that model."""

    cost_ns: float
    low_ns: float
    high_ns: float


@dataclass(frozen=True, slots=True)
class Thinned:
    """Batches, or steps of the loop, of which most were unprobed: probing all would have cost too much."""

    first: int
    """The one of its loader, in the order in which they were begun, with which that began."""
    batches: int
    """Those from there on, of that loader."""
    probed: int
    """Those of them that were probed."""


@dataclass(frozen=True, slots=True)
class OwnCost:
    """Costs of observing a run, by the run itself."""

    main: CostPerBatch
    """The loop's thread; without workers it makes the batches too."""
    workers: CostPerBatch | None
    """The workers' threads that make batches; None if there are no workers."""
    modelled_ns: float | None
    """Cost of a batch's record as it was measured on an empty one at the run's start."""
    threads_ns: float | None = None
    """CPU time a step of the threads that write the run and sample lines, in all processes."""
    handover_ns: float | None = None
    """Cost of the times in a batch's pickle, to a worker's queue thread and the main process together, as it
    was measured on an empty one; None if there are no workers."""
    needed_batches: int = NEEDED_BATCHES
    """Batches of one loader below which nothing can be said."""
    thinned: Thinned | None = None
    """Part of the run in which most batches were unprobed; None if there was none."""
    calls: ModelledCost | None = None
    """Cost of the loop's calls into and out of the proxies; in none of the others. None if what unprobed
    batches bear was not measured."""
    worker_calls: ModelledCost | None = None
    """The same of a worker's calls; None likewise, and without workers."""
    thinned_steps: Thinned | None = None
    """Part in which most of the loop's steps were; None if there was none, or the loop makes the batches."""


def read_own_cost(run: Run) -> OwnCost | None:
    """Measure the cost of observing a run from its unprobed batches; None if no batch was recorded."""
    steps = read_ints(run, "steps", ("step", "loader", *_COLUMNS))
    batches = read_ints(run, "batches", ("start_ns", "worker", "epoch", "seq", "cpu_ns", "loader", *_COLUMNS))
    if len(steps["step"]) == 0 or len(batches["worker"]) == 0:
        return None
    overhead = run.meta.overhead
    written = [ns for ns in (overhead.flush_ns, overhead.lines_ns) if ns is not None]
    threads_ns = sum(written) if written else None
    in_making, detailed_ns = _unprobed_ns(batches), _detailed_ns(run, batches)
    main = _differences(steps, steps["step"], (steps["loader"],))
    if not (batches["worker"] != MAIN_PROCESS).any():
        cost = _cost(main, steps, _sum(_unprobed_ns(steps), in_making), detailed_ns)
        thinned = _thinned(batches, batches["start_ns"], batches["worker"])
        calls = _calls(cost, CALLS)
        return OwnCost(cost, None, overhead.batch_ns, threads_ns, thinned=thinned, calls=calls)
    cost = _cost(main, steps, _unprobed_ns(steps))
    made = _differences(batches, batches["start_ns"], (batches["worker"], batches["loader"]))
    making = _cost(made, batches, in_making, detailed_ns)
    return OwnCost(
        cost,
        making,
        overhead.batch_ns,
        threads_ns,
        overhead.handover_ns,
        thinned=_thinned(batches, batches["start_ns"], batches["worker"]),
        calls=_calls(cost, CALLS_WITH_WORKERS),
        worker_calls=_calls(making, CALLS_IN_WORKER),
        thinned_steps=_thinned(steps, steps["step"], np.full(len(steps["step"]), MAIN_PROCESS)),
    )


def _calls(cost: CostPerBatch, multiples: tuple[float, float, float]) -> ModelledCost | None:
    clocked_ns = cost.unprobed_ns
    return None if clocked_ns is None else ModelledCost(*(each * clocked_ns for each in multiples))


def _thinned(rows: dict[str, Ints], order: Ints, thread: Ints) -> Thinned | None:
    """Return the place from which most rows of a loader were unprobed, of the loader with the most rows.

    There a thread makes more of them in a row than one block.
    """
    loaders, counts = np.unique(rows["loader"], return_counts=True)
    mine = np.flatnonzero(rows["loader"] == loaders[counts.argmax()])
    mine = mine[np.argsort(order[mine], kind="stable")]
    unprobed, worker = rows["unprobed"][mine] == 1, thread[mine]
    firsts = []
    for one in np.unique(worker):
        own = np.flatnonzero(worker == one)
        passed = np.append(0, np.cumsum(unprobed[own]))
        in_row = passed[UNPROBED_BLOCK + 1 :] - passed[: -UNPROBED_BLOCK - 1]
        firsts += own[np.flatnonzero(in_row == UNPROBED_BLOCK + 1)[:1]].tolist()
    if not firsts:
        return None
    first = min(firsts)
    return Thinned(first, len(mine) - first, int((~unprobed[first:]).sum()))


def _unprobed_ns(rows: dict[str, Ints]) -> float | None:
    """Return the median of what was still done in unprobed rows; None if it was not observed."""
    own = rows["own_ns"][(rows["unprobed"] == 1) & (rows["own_ns"] != NOT_OBSERVED)]
    return float(np.median(own)) if len(own) else None


def _sum(loop_ns: float | None, making_ns: float | None) -> float | None:
    return None if loop_ns is None or making_ns is None else loop_ns + making_ns


def _detailed_ns(run: Run, batches: dict[str, Ints]) -> float | None:
    """Return how much longer the batches take whose spans are kept, spread over all batches of the run.

    None if too few were kept, or their CPU time is not known.
    """
    if not (batches["unprobed"] == 1).any():
        return None
    detailed = np.isin(_keys(batches, batches), _keys(read_ints(run, "spans", _KEY), batches))
    seen = batches["cpu_ns"] != NOT_OBSERVED
    of_detailed, of_others = batches["cpu_ns"][detailed & seen], batches["cpu_ns"][~detailed & seen]
    if min(len(of_detailed), len(of_others)) < FEWEST_BLOCKS:
        return None
    return max(0.0, float(np.median(of_detailed) - np.median(of_others))) * float(detailed.mean())


def _keys(rows: dict[str, Ints], batches: dict[str, Ints]) -> Ints:
    """Return one number for each row that names its batch, of those of `batches`."""
    epochs, length = (int(batches[name].max()) + 1 for name in ("epoch", "seq"))
    return (rows["loader"] * epochs + rows["epoch"]) * length + rows["seq"]


def _differences(rows: dict[str, Ints], order: Ints, threads: tuple[Ints, ...]) -> Floats | None:
    """Compare the blocks of all threads; rows of one thread are those that agree in `threads`.

    None if no row was unprobed.
    """
    unprobed = rows["unprobed"] == 1
    return differences(unprobed, rows["thread_cpu_ns"], order, threads) if unprobed.any() else None


def _cost(
    differences_ns: Floats | None,
    rows: dict[str, Ints],
    unprobed_ns: float | None,
    detailed_ns: float | None = None,
) -> CostPerBatch:
    if differences_ns is None:
        return CostPerBatch("too-short" if len(rows["unprobed"]) < NEEDED_BATCHES else "not-observed")
    return cost_of(differences_ns, unprobed_ns, detailed_ns, float((rows["unprobed"] != 1).mean()))


def differences(
    unprobed: npt.NDArray[np.bool_], thread_cpu_ns: Ints, order: Ints, threads: tuple[Ints, ...]
) -> Floats:
    """Return for each whole block how much more CPU time a probed batch took than an unprobed one.

    A block and its neighbours are of this many batches each; it alone is unprobed, or it alone is probed.
    """
    sorted_rows = np.lexsort((order, *threads))
    cpu, marked = thread_cpu_ns[sorted_rows], unprobed[sorted_rows]
    which = [thread[sorted_rows] for thread in threads]
    edges = np.flatnonzero(cpu != NOT_OBSERVED)
    if len(edges) < _EDGES:
        return np.zeros(0)
    at = np.lib.stride_tricks.sliding_window_view(edges, _EDGES)
    lengths = np.diff(at, axis=1)
    block = lengths[:, 0]
    whole = (lengths == block[:, None]).all(axis=1) & (block <= UNPROBED_BLOCK)
    for thread in which:
        whole &= thread[at[:, 0]] == thread[at[:, -1]]
    passed = np.append(0, np.cumsum(marked))
    inside = [passed[at[:, n + 1]] - passed[at[:, n]] for n in range(_EDGES - 1)]
    is_less = (inside[0] == 0) & (inside[1] == block) & (inside[2] == 0)
    is_more = (inside[0] == block) & (inside[1] == 0) & (inside[2] == block)
    whole &= is_less | is_more
    taken = np.diff(cpu[at[whole]], axis=1).astype(np.float64) / block[whole, None]
    known = (taken > 0).all(axis=1)  # else the process is another one, with a clock of its own
    less = (taken[:, 0] + taken[:, 2]) / 2 - taken[:, 1]
    return np.asarray(np.where(is_more[whole], -less, less)[known])


def cost_of(
    differences_ns: Floats,
    unprobed_ns: float | None = None,
    detailed_ns: float | None = None,
    probed_share: float = 1.0,
) -> CostPerBatch:
    """Return the median of some differences with its interval, if there are enough of them.

    Both are borne by the share of the batches that were probed; the parts that they do not show are added.
    """
    count = len(differences_ns)
    if count < FEWEST_BLOCKS:
        return CostPerBatch("too-short", count, probed_share=probed_share)
    values = np.sort(differences_ns)
    outside = _left_out(count)
    is_seen = values[outside] > 0
    low, high = (float(values[place]) * probed_share for place in (outside, count - 1 - outside))
    more = (unprobed_ns or 0.0) + (detailed_ns or 0.0)
    cost_ns = float(np.median(values)) * probed_share + more if is_seen else None
    state: State = "below-noise" if cost_ns is None else "measured"
    return CostPerBatch(
        state, count, cost_ns, low + more, high + more, unprobed_ns, detailed_ns, probed_share
    )


def _left_out(count: int) -> int:
    """Return how many values at each end lie outside of a 95 % interval of the median."""
    if count > 1000:  # the normal's quantile, which is as good there
        return int(count / 2 - 0.98 * count**0.5)
    chance, left_out = 0.0, 0
    while (chance := chance + comb(count, left_out) / 2**count) <= _MISSED:
        left_out += 1
    return max(0, left_out - 1)
