"""Many predictions at once: the heat map of workers and prefetch, and the least that a target takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any, Final

from pipeprof.devices import NS_PER_S, with_figures
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.draw import batch_ratio, changed
from pipeprof.simulate.fixes import worker_counts
from pipeprof.simulate.knobs import UNKNOWN, Knobs
from pipeprof.simulate.predict import Prediction, predict

PREFETCHES: Final = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Predictions by workers (rows) and prefetch factor (columns) for one storage."""

    workers: tuple[int, ...]
    prefetch: tuple[int, ...]
    cells: tuple[tuple[Prediction, ...], ...]
    """`cells[row][column]`; without workers there is nothing to prefetch, and all columns are the same."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a list of rows under each key."""

        def each(read: Callable[[Prediction], Any]) -> list[list[Any]]:
            return [[read(cell) for cell in row] for row in self.cells]

        return {
            "workers": list(self.workers),
            "prefetch": list(self.prefetch),
            "throughput_samples_per_s": each(lambda cell: cell.throughput.value),
            "throughput_interval": each(lambda cell: [cell.throughput.low, cell.throughput.high]),
            "stall_share": each(lambda cell: cell.stall.value),
            "stall_interval": each(lambda cell: [cell.stall.low, cell.stall.high]),
            "extrapolations": each(lambda cell: list(cell.extrapolations)),
        }


def heat_map(
    demands: Demands,
    knobs: Knobs,
    workers: Sequence[int] | None = None,
    prefetch: Sequence[int] = PREFETCHES,
    steps: int | None = None,
    seed: int = 0,
) -> HeatMap:
    """Predict every pair of `workers` and `prefetch`, the other knobs as they are."""
    counts = tuple(workers if workers is not None else worker_counts(knobs))
    rows = []
    for count in counts:
        columns = prefetch if count else prefetch[:1]
        row = [predict(demands, replace(knobs, workers=count, prefetch=p), steps, seed=seed) for p in columns]
        rows.append(tuple(row if count else row * len(prefetch)))
    return HeatMap(counts, tuple(prefetch), tuple(rows))


@dataclass(frozen=True, slots=True)
class Need:
    """The least of one resource that brings the stall under the target, the others as they are."""

    resource: str
    amount: float | None
    """None: no amount of this resource alone is enough."""
    present: float
    unit: str = ""
    prediction: Prediction | None = None
    """The run with that amount; None where none is enough."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.prediction
        return {
            "resource": self.resource,
            "amount": self.amount,
            "present": self.present,
            "unit": self.unit,
            "stall_share": None if found is None else found.stall.as_dict(),
            "extrapolations": [] if found is None else list(found.extrapolations),
        }


Least = tuple[int, Prediction] | tuple[None, None]
"""A number, and the run with so many; None where no number is enough."""
MOST_CORES: Final = 128
MOST_FASTER: Final = 80
"""Tenths more, one on top of the other, that a device is made faster by at the most: 2,000 times."""


def what_would_it_take(
    demands: Demands, knobs: Knobs, target_stall: float, seed: int = 0, vain: Collection[str] = ()
) -> list[Need]:
    """The fewest workers and cores, and the slowest storage, with which the stall stays under `target_stall`.

    Each alone, everything else as in `knobs`; cores bring a worker each. No more workers are asked about
    where `more-workers` is among the fixes in `vain`.
    """
    counts = sorted({*worker_counts(knobs), knobs.workers})
    cores = [2**power for power in range(max(MOST_CORES, 2 * ceil(knobs.cores)).bit_length())]
    bring = 1
    if "more-workers" in vain:
        counts, bring = [count for count in counts if count <= knobs.workers], 0

    def with_workers(count: int) -> Prediction:
        return predict(demands, replace(knobs, workers=count), seed=seed)

    def with_cores(count: int) -> Prediction:
        workers = max(knobs.workers, bring * count)
        return predict(demands, replace(knobs, cores=float(count), workers=workers), seed=seed)

    found = _fewest(with_workers, target_stall, counts)
    needs = [Need("workers", found[0], knobs.workers, prediction=found[1])]
    found = _fewest(with_cores, target_stall, cores)
    needs.append(Need("cores", found[0], knobs.cores, prediction=found[1]))
    if demands.storage_observed and knobs.storage.kind != "memory":
        needs += _storage_needs(demands, knobs, target_stall, seed)
    return needs


def _fewest(ask: Callable[[int], Prediction], target_stall: float, tries: Sequence[int]) -> Least:
    """The smallest number with which the stall is under the target, up to the last of `tries`.

    Of the ascending `tries` the first that is enough is found; between it and the one before, which is not,
    more is taken to be no worse.
    """
    ask = cache(ask)

    def enough(count: int) -> bool:
        return ask(count).stall.value < target_stall

    low, high = tries[0], tries[-1]
    if not enough(high):  # too many may be worse than some
        at = next((at for at, count in enumerate(tries) if enough(count)), None)
        if at is None:
            return None, None
        low, high = tries[max(0, at - 1)], tries[at]
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low, ask(low)


def _storage_needs(demands: Demands, knobs: Knobs, target_stall: float, seed: int) -> list[Need]:
    """How much faster the device would have to be, as the bytes and the requests that it would serve."""

    def faster(tenths: int) -> Prediction:
        return predict(demands, replace(knobs, storage=_faster(knobs, 1.1**tenths)), seed=seed)

    _, found = _fewest(faster, target_stall, (0, MOST_FASTER))
    now = predict(demands, knobs, seed=seed)
    size_bytes, requests = _of_a_sample(demands, knobs)
    needs = []
    for name, each, unit in (
        ("storage bandwidth", size_bytes / 1e6, "MB/s"),
        ("storage requests", requests, "reads/s"),
    ):
        amount = None if found is None else ceil(found.throughput.value * each)
        needs.append(Need(name, amount, now.throughput.value * each, unit, found))
    return needs


def _of_a_sample(demands: Demands, knobs: Knobs) -> tuple[float, float]:
    """Bytes and requests that the storage serves for one sample: a device's as the knobs make them, those of
    storage without a cost model as they were recorded."""
    rows, samples = demands.measured_rows, float(knobs.batch_size)
    read_bytes, requests = demands.batches.read_bytes, demands.batches.requests
    if knobs.storage == UNKNOWN:
        samples /= batch_ratio(demands, knobs)
    else:
        drawn = changed(demands, knobs)
        read_bytes, requests = drawn["read_bytes"], drawn["requests"]
    return float(read_bytes[rows].mean()) / samples, float(requests[rows].mean()) / samples


@dataclass(frozen=True, slots=True)
class Shared:
    """What machines that train together ask of the storage that they share."""

    bytes_per_s: float | None
    requests_per_s: float | None
    """Both if no accelerator ever waited; None where not observed."""
    limit_known: bool
    """Whether the storage has a cost model, which alone tells what it can give."""
    limits_from_nodes: int | None
    """The fewest machines, a power of two up to `MOST_NODES`, whose pace the storage sets; None for none."""


MOST_NODES: Final = 1024


def shared_storage(demands: Demands, knobs: Knobs, seed: int = 0) -> Shared | None:
    """What `knobs.nodes` machines of `knobs.ranks` accelerators need; None where no storage is asked."""
    modelled = knobs.storage.kind != "memory"
    asked = (modelled or knobs.storage == UNKNOWN) and knobs.keep != "decoded"
    if not demands.storage_observed or not asked or demands.step_ns <= 0:
        return None
    step_ns = demands.step_ns * batch_ratio(demands, knobs)
    samples_per_s = (
        knobs.nodes * knobs.ranks * knobs.batch_size * NS_PER_S * knobs.accelerator_speed / step_ns
    )
    size_bytes, requests = _of_a_sample(demands, knobs)

    warmup = max(demands.warmup, knobs.outstanding)

    def limited(nodes: int) -> bool:
        asked = replace(knobs, nodes=nodes)
        return predict(demands, asked, warmup + 60, warmup, seed).limit.startswith("storage")

    counts = (2**power for power in range(MOST_NODES.bit_length()))
    return Shared(
        samples_per_s * size_bytes or None,
        samples_per_s * requests or None,
        modelled,
        next((n for n in counts if limited(n)), None) if modelled else None,
    )


def _faster(knobs: Knobs, factor: float) -> Any:
    model = knobs.storage
    return with_figures(
        model,
        {
            "bandwidth_bytes_per_s": model.bandwidth_bytes_per_s * factor,
            "seek_ns": model.seek_ns / factor,
            "half_rotation_ns": model.half_rotation_ns / factor,
            "latency_ns": model.latency_ns / factor,
            "requests_per_s": model.requests_per_s * factor,
        },
    )
