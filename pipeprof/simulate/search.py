"""Many predictions at once: the heat map of workers and prefetch, and the least that a target takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Final

from pipeprof.devices import NS_PER_S, with_figures
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.draw import batch_ratio, changed
from pipeprof.simulate.fixes import worker_counts
from pipeprof.simulate.knobs import Knobs
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
        """For JSON."""
        return {
            "workers": list(self.workers),
            "prefetch": list(self.prefetch),
            "throughput_samples_per_s": [[cell.throughput.value for cell in row] for row in self.cells],
            "stall_share": [[cell.stall.value for cell in row] for row in self.cells],
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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"resource": self.resource, "amount": self.amount, "present": self.present, "unit": self.unit}


def what_would_it_take(demands: Demands, knobs: Knobs, target_stall: float, seed: int = 0) -> list[Need]:
    """The fewest workers and cores, and the slowest storage, with which the stall stays under `target_stall`.

    Each alone, everything else as in `knobs`; cores bring a worker each.
    """

    def enough(changed_knobs: Knobs) -> bool:
        return predict(demands, changed_knobs, seed=seed).stall.value < target_stall

    needs = [
        Need(
            "workers",
            _fewest(lambda n: enough(replace(knobs, workers=n)), max(worker_counts(knobs))),
            knobs.workers,
        ),
        Need(
            "cores",
            _fewest(lambda n: enough(replace(knobs, cores=float(n), workers=max(knobs.workers, n))), 128, 1),
            knobs.cores,
        ),
    ]
    if demands.storage_observed and knobs.storage.kind != "memory":
        needs += _storage_needs(demands, knobs, enough)
    return needs


def _fewest(enough: Callable[[int], bool], most: int, least: int = 0) -> int | None:
    """The smallest number from `least` to `most` that is enough, taking it that more is never worse."""
    if not enough(most):
        # too many may be worse than some: look at each
        return next((n for n in range(least, most) if enough(n)), None) if most <= 16 else None
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _storage_needs(demands: Demands, knobs: Knobs, enough: Callable[[Knobs], bool]) -> list[Need]:
    """How much faster the device would have to be, as the bytes and the requests that it would serve."""
    factor = _fewest(lambda n: enough(replace(knobs, storage=_faster(knobs, 1.1**n))), 80)
    faster = None if factor is None else predict(demands, replace(knobs, storage=_faster(knobs, 1.1**factor)))
    now = predict(demands, knobs)
    size_bytes, requests = _of_a_sample(demands, knobs)
    needs = []
    for name, each, unit in (
        ("storage bandwidth", size_bytes / 1e6, "MB/s"),
        ("storage requests", requests, "reads/s"),
    ):
        amount = None if faster is None else ceil(faster.throughput.value * each)
        needs.append(Need(name, amount, now.throughput.value * each, unit))
    return needs


def _of_a_sample(demands: Demands, knobs: Knobs) -> tuple[float, float]:
    """Bytes and requests that the device serves for one sample."""
    drawn, rows = changed(demands, knobs), demands.measured_rows
    size_bytes, requests = (float(drawn[name][rows].mean()) for name in ("read_bytes", "requests"))
    return size_bytes / knobs.batch_size, requests / knobs.batch_size


@dataclass(frozen=True, slots=True)
class Shared:
    """What machines that train together ask of the storage that they share."""

    bytes_per_s: float
    requests_per_s: float
    """Both if no accelerator ever waited."""
    limits_from_nodes: int | None
    """The fewest machines, a power of two up to `MOST_NODES`, whose pace the storage sets; None for none."""


MOST_NODES: Final = 1024


def shared_storage(demands: Demands, knobs: Knobs, seed: int = 0) -> Shared | None:
    """What `knobs.nodes` machines of `knobs.ranks` accelerators need; None where no device is asked."""
    if not demands.storage_observed or knobs.storage.kind == "memory" or demands.step_ns <= 0:
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
        samples_per_s * size_bytes, samples_per_s * requests, next((n for n in counts if limited(n)), None)
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
