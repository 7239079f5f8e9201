"""Makes batches as a script's loader makes them, and does nothing else with them, in 1, 2 and 4 processes.

The cost of a batch grows with the number of processes if they share more than cores: memory bandwidth,
caches. Each number is measured twice, in ascending and then descending order, so that cores that slow down
meanwhile affect all alike.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from pipeprof.errors import MeasureError
from pipeprof.record.added.scaling_probe import ScalingPoint, ScalingProbe, write_scaling
from pipeprof.record.reader import load

PROCESSES: Final = (1, 2, 4)
POINT_S: Final = 0.5
MOST_S: Final = 6.0
"""Time after which no further point is begun."""
FEWEST: Final = 2
"""Batches of each process, beyond its first, that a point waits for."""
TIMEOUT_S: Final = 10.0
"""Longest wait for one batch."""


@dataclass(frozen=True, slots=True)
class BatchMaker:
    """The parts of a loader that make its batches; they keep the data set, and none of the workers."""

    dataset: Any
    collate: Callable[[Any], Any]
    indices: Any
    """The batch sampler, or if there is none, the sampler; None for a stream."""
    batch_size: int | None
    """None if samples come one by one."""
    drop_last: bool
    worker_init: Callable[[int], None] | None
    context: Any

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> BatchMaker | None:
        """Take them from a loader; None if another library makes its batches."""
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
            return None
        stream = isinstance(loader.dataset, IterableDataset)
        one_by_one = loader.batch_sampler is None
        return cls(
            loader.dataset,
            loader.collate_fn,
            None if stream else loader.sampler if one_by_one else loader.batch_sampler,
            None if one_by_one else loader.batch_size or 1,
            bool(loader.drop_last),
            loader.worker_init_fn,
            getattr(loader, "multiprocessing_context", None),
        )

    def alone(self, processes: int) -> DataLoader[Any]:
        """Return a loader that makes the same batches, and gives the cost of each in its place."""
        if self.indices is None:
            which: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        elif self.batch_size is None:
            which = {"sampler": _Again(self.indices), "batch_size": None}
        else:
            which = {"batch_sampler": _Again(self.indices)}
        return DataLoader(
            self.dataset,
            collate_fn=_Timed(self.collate),
            num_workers=processes,
            worker_init_fn=self.worker_init,
            multiprocessing_context=self.context,
            timeout=TIMEOUT_S,
            **which,
        )


class _Again:
    """A sampler's indices, again and again."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        given = True
        while given:
            given = False
            for each in self._sampler:
                given = True
                yield each


class _Batch(NamedTuple):
    """A batch that was made: CPU time of its worker since it had made the one before, and its samples."""

    cpu_ns: int | None
    samples: int


class _Timed:
    """Collates as the loader does, and gives the cost of the batch."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate
        self._before_ns: int | None = None

    def __call__(self, samples: Any) -> _Batch:
        self._collate(samples)
        now, before = time.thread_time_ns(), self._before_ns
        self._before_ns = now
        return _Batch(None if before is None else now - before, len(samples) if _is_many(samples) else 1)


def _is_many(samples: Any) -> bool:
    return isinstance(samples, (list, tuple))


class Makings:
    """The parts of each of a script's loaders, by the loader's number."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, BatchMaker]] = {}

    def keep(self, number: int, name: str, loader: DataLoader[Any]) -> None:
        """Keep the parts of a loader that make its batches."""
        making = BatchMaker.of(loader)
        if making is not None:
            self._known[number] = name, making

    def probe(self, run: Path) -> ScalingProbe:
        """Probe the loader that gave most of the run's batches, and keep the result in the run.

        Raises `MeasureError` if that cannot be.
        """
        taken = Counter(load(run).table("steps").column("loader").to_pylist())
        known = {number: taken[number] for number in self._known if taken[number]}
        if not known:
            raise MeasureError("no batch was taken from a loader of torch's own", "see `pipeprof report RUN`")
        name, making = self._known[max(known, key=known.__getitem__)]
        probe = probe_scaling(making, name)
        try:
            write_scaling(run, probe)
        except OSError as error:
            raise MeasureError(f"{run} cannot be written: {error.strerror}", "make room there") from error
        return probe


def probe_scaling(making: BatchMaker, name: str = "", point_s: float | None = None) -> ScalingProbe:
    """Make batches in 1, 2 and 4 processes, each number for twice `point_s`, by default `POINT_S`.

    Raises `MeasureError` if they cannot be made.
    """
    seconds, began = POINT_S if point_s is None else point_s, time.monotonic()
    made: dict[int, list[_Point]] = defaultdict(list)
    for processes in (*PROCESSES, *reversed(PROCESSES)):
        if time.monotonic() - began > MOST_S:
            break
        try:
            made[processes].append(_point(making, processes, seconds))
        except Exception as error:  # the script's own, of any kind; torch's text ends with that of a worker
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise MeasureError(
                f"batches could not be made once more: {reason}",
                "see that the data set can still be read when the script has ended",
            ) from error
    points = [_mean(processes, some) for processes, some in sorted(made.items())]
    known = tuple(point for point in points if point.batches)
    if len(known) < 2:
        raise MeasureError(
            f"too few batches were made in {MOST_S:g} s to compare processes", "make them smaller"
        )
    return ScalingProbe(name, known, time.monotonic() - began)


class _Point(NamedTuple):
    """Batches of that many processes: their number, samples, CPU time and time."""

    batches: int = 0
    samples: int = 0
    cpu_ns: int = 0
    wall_s: float = 0.0


def _point(making: BatchMaker, processes: int, seconds: float) -> _Point:
    batches = samples = cpu_ns = 0
    first = last = 0.0
    for batch in making.alone(processes):
        now = time.monotonic()
        first = first or now
        if batch.cpu_ns is not None:  # not the first of its worker, which opens and loads what it needs
            batches, samples, cpu_ns = batches + 1, samples + batch.samples, cpu_ns + batch.cpu_ns
            last = now
        enough = batches >= FEWEST * processes
        if now - first >= seconds and enough:
            break
    return _Point(batches, samples, cpu_ns, last - first)


def _mean(processes: int, some: list[_Point]) -> ScalingPoint:
    batches, samples, cpu_ns, wall_s = (sum(each) for each in zip(*some, strict=True))
    return ScalingPoint(
        processes,
        batches,
        cpu_ns / samples if samples else 0.0,
        samples / wall_s if wall_s else 0.0,
    )
