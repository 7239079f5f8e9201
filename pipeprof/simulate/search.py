"""Many predictions at once: the heat map of workers and prefetch, and the least that a target takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any, Final

from pipeprof.devices import with_figures
from pipeprof.record.meta import MOST_WORKERS
from pipeprof.simulate.catalogue import worker_counts
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import UNKNOWN, Knobs
from pipeprof.simulate.predict import Prediction, Predictor
from pipeprof.simulate.sampling import batch_ratio, changed
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import fixes, owners

PREFETCHES: Final = (1, 2, 4, 8)
MAP_STEPS: Final = 100
"""Measured steps of each prediction of a page's heat map: a cell is in percent, and a page takes seconds."""
MAP_WORKERS: Final = (0, 1, 2, 4, 8, 16)
MAP_PREFETCH: Final = (1, 2, 4)
Place = tuple[int, int]
"""Workers and prefetch."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Predictions by workers (rows) and prefetch factor (columns) for one storage."""

    workers: tuple[int, ...]
    prefetch: tuple[int, ...]
    cells: tuple[tuple[Prediction, ...], ...]
    """`cells[row][column]`; without workers there is nothing to prefetch, and all columns are the same."""
    current: Place
    """Place of the run itself."""
    advised: Place | None = None
    """Place that the advised fix leads to, if it changes workers or prefetch."""

    def is_current(self, workers: int, prefetch: int) -> bool:
        """Return True for the cell in which the run itself stands."""
        return workers == self.current[0] and (prefetch == self.current[1] or workers == 0)

    def as_dict(self) -> dict[str, Any]:
        """Return a list of rows under each key, for JSON."""

        def each(read: Callable[[Prediction], Any]) -> list[list[Any]]:
            return [[read(cell) for cell in row] for row in self.cells]

        return {
            "workers": list(self.workers),
            "prefetch": list(self.prefetch),
            "throughput_samples_per_s": each(lambda cell: cell.throughput.value),
            "throughput_interval": each(lambda cell: [cell.throughput.low, cell.throughput.high]),
            "stall_share": each(lambda cell: cell.stall.value),
            "stall_interval": each(lambda cell: [cell.stall.low, cell.stall.high]),
            "extrapolations": each(
                lambda cell: [str(extrapolation) for extrapolation in cell.extrapolations]
            ),
        }


def heat_map(
    predictor: Predictor,
    workers: Sequence[int] | None = None,
    prefetch: Sequence[int] = PREFETCHES,
    steps: int | None = None,
    advised: Place | None = None,
) -> HeatMap:
    """Predict every pair of `workers` and `prefetch`, with the other knobs unchanged.

    Each cell is the long run or, if `steps` is given, a run of that many steps unless the long run is known.
    """
    knobs = predictor.demands.measured

    def cell(count: int, prefetch: int) -> Prediction:
        asked = replace(knobs, workers=count, prefetch=prefetch)
        return predictor.predict(asked) if steps is None else predictor.at_least(asked, steps)

    counts = tuple(workers if workers is not None else worker_counts(knobs))
    rows = []
    for count in counts:
        columns = (knobs.prefetch,) if not count else prefetch
        row = [cell(count, p) for p in columns]
        rows.append(tuple(row if count else row * len(prefetch)))
    return HeatMap(counts, tuple(prefetch), tuple(rows), (knobs.workers, knobs.prefetch), advised)


def small_map(predictor: Predictor, advised: Place | None) -> HeatMap:
    """Predict a page's heat map: round numbers, the run itself and the advised place."""
    knobs = predictor.demands.measured
    places = [(knobs.workers, knobs.prefetch), *([advised] if advised else [])]
    most = max(2 * knobs.cores, *(2 * place[0] for place in places), 4)
    workers = sorted({*(n for n in MAP_WORKERS if n <= most), *(place[0] for place in places)})
    prefetch = sorted({*MAP_PREFETCH, *(place[1] for place in places)})
    warmup = max(predictor.demands.warmup, max(workers) * max(prefetch))
    return heat_map(predictor, workers, prefetch, MAP_STEPS + warmup, advised)


@dataclass(frozen=True, slots=True)
class Need:
    """The least of one resource that brings the stall under the target, with the others unchanged."""

    resource: str
    amount: float | None
    """Amount of the resource. None: no amount of it alone is enough."""
    present: float
    unit: str = ""
    prediction: Prediction | None = None
    """The run with that amount; None if none is enough."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        prediction = self.prediction
        return {
            "resource": self.resource,
            "amount": self.amount,
            "present": self.present,
            "unit": self.unit,
            "stall_share": None if prediction is None else prediction.stall.as_dict(),
            "extrapolations": [] if prediction is None else [str(each) for each in prediction.extrapolations],
        }


Least = tuple[int, Prediction] | tuple[None, None]
"""A number, and the run with that many; None if no number is enough."""
MOST_CORES: Final = 128
MOST_FASTER: Final = 80
"""Largest number of steps, each a tenth faster than the one before, by which a device is sped up: 2,000
times."""


def what_would_it_take(
    predictor: Predictor, knobs: Knobs, target_stall: float, ineffective: Collection[str] = ()
) -> list[Need]:
    """Find the fewest workers and cores, and the slowest storage, with which the stall stays under
    `target_stall`.

    Each is varied alone, everything else as in `knobs`; each core brings a worker. No more workers are asked
    about if `more-workers` is among the fixes in `ineffective`.
    """
    counts = sorted({*worker_counts(knobs), knobs.workers})
    cores = [2**power for power in range(max(MOST_CORES, 2 * ceil(knobs.cores)).bit_length())]
    bring = 1
    if fixes.MORE_WORKERS.word in ineffective:
        counts, bring = [count for count in counts if count <= knobs.workers], 0

    def with_workers(count: int) -> Prediction:
        return predictor.predict(replace(knobs, workers=count))

    def with_cores(count: int) -> Prediction:
        workers = max(knobs.workers, bring * min(count, MOST_WORKERS))
        return predictor.predict(replace(knobs, cores=float(count), workers=workers))

    fewest = _fewest(with_workers, target_stall, counts)
    needs = [Need("workers", fewest[0], knobs.workers, prediction=fewest[1])]
    fewest = _fewest(with_cores, target_stall, cores)
    needs.append(Need("cores", fewest[0], knobs.cores, prediction=fewest[1]))
    if predictor.demands.place.reads_observed and knobs.storage.kind != "memory":
        needs += _storage_needs(predictor, knobs, target_stall)
    return needs


def _fewest(ask: Callable[[int], Prediction], target_stall: float, tries: Sequence[int]) -> Least:
    """Return the smallest number with which the stall is under the target, up to the last of `tries`.

    Find the first of the ascending `tries` that is enough; between it and the one before, which is not, more
    is taken to be at least as good.
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


def _storage_needs(predictor: Predictor, knobs: Knobs, target_stall: float) -> list[Need]:
    """Return how much faster the device would have to be, as bytes and requests that it would serve."""

    def faster(tenths: int) -> Prediction:
        return predictor.predict(replace(knobs, storage=_faster(knobs, 1.1**tenths)))

    _, fewest = _fewest(faster, target_stall, (0, MOST_FASTER))
    now = predictor.predict(knobs)
    size_bytes, requests = _of_a_sample(predictor.demands, knobs)
    needs = []
    for name, each, unit in (
        ("storage bandwidth", size_bytes / 1e6, "MB/s"),
        ("storage requests", requests, "reads/s"),
    ):
        amount = None if fewest is None else ceil(fewest.throughput.value * each)
        needs.append(Need(name, amount, now.throughput.value * each, unit, fewest))
    return needs


def _of_a_sample(demands: Demands, knobs: Knobs) -> tuple[float, float]:
    """Return the bytes and requests that the storage serves for a sample: a device's as the knobs make them,
    those of storage without a cost model as they were recorded."""
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
    """Demands of machines that train together on the storage that they share."""

    bytes_per_s: float | None
    requests_per_s: float | None
    """Requests and bytes a second if no accelerator ever waited; None if not observed."""
    limit_known: bool
    """True if the storage has a cost model, which alone says what it can give."""
    limits_from_nodes: int | None
    """Fewest machines, a power of two up to `MOST_NODES`, whose pace the storage sets; None for none."""


MOST_NODES: Final = 1024


def shared_storage(predictor: Predictor, knobs: Knobs) -> Shared | None:
    """Return what `knobs.nodes` machines of `knobs.ranks` accelerators need; None if no storage is asked."""
    demands = predictor.demands
    modelled = knobs.storage.kind != "memory"
    asked = (modelled or knobs.storage == UNKNOWN) and knobs.keep != "decoded"
    if not demands.place.reads_observed or not asked or demands.step_ns <= 0:
        return None
    step_ns = demands.step_ns * batch_ratio(demands, knobs)
    samples_per_s = (
        knobs.nodes * knobs.ranks * knobs.batch_size * NS_PER_S * knobs.accelerator_speed / step_ns
    )
    size_bytes, requests = _of_a_sample(demands, knobs)

    warmup = max(demands.warmup, knobs.outstanding)

    def limited(nodes: int) -> bool:
        asked = replace(knobs, nodes=nodes)
        return predictor.predict(asked, warmup + 60, warmup).limit == owners.STORAGE.name

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
