"""The training loop of the bench: take a batch, submit it, again, until the scenario's limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from pipeprof.errors import DataError
from pipeprof.measure.accelerator.contract import Accelerator
from pipeprof.measure.bench.rank_group import Peers
from pipeprof.measure.bench.run_display import Progress
from pipeprof.measure.bench.signals import StopRequest, leave_signals_to_the_loop
from pipeprof.measure.data.datasets import TarShards
from pipeprof.measure.probe.tensors import samples
from pipeprof.measure.session.session import Session
from pipeprof.scenario import LoaderPart, RunPart, Scenario


def make_loader(
    session: Session, dataset: Dataset[Any], part: LoaderPart, seed: int, peers: Peers | None = None
) -> DataLoader[Any]:
    """Make the scenario's loader, watched by `session`. What torch refuses without workers is left out.

    With `peers` each rank reads its own share of the data.
    """
    arguments: dict[str, Any] = {}
    if part.workers > 0:
        arguments = {
            "prefetch_factor": part.prefetch or 2,
            "persistent_workers": part.persistent_workers,
            "multiprocessing_context": part.start_method,
            "worker_init_fn": leave_signals_to_the_loop,
        }
    shuffle = part.shuffle and not isinstance(dataset, IterableDataset)
    if peers is not None:
        arguments["sampler"] = _share_of(dataset, peers, shuffle, seed)
        shuffle = False
    return session.loader(
        dataset,
        batch_size=part.batch_size,
        shuffle=shuffle,
        num_workers=part.workers,
        pin_memory=part.pin_memory,
        drop_last=part.drop_last,
        in_order=part.in_order,
        generator=torch.Generator().manual_seed(seed),
        **arguments,
    )


def loader_part(scenario: Scenario, accelerator: Accelerator) -> LoaderPart:
    """Return the scenario's loader. From the tier `pinned` a device takes its batches page-locked.

    The emulated link needs no memory that is really pinned, and no thread that pins it.
    """
    pinned = scenario.storage.tier == "pinned" and accelerator.pins
    part = scenario.loader
    return part.model_copy(update={"pin_memory": True}) if pinned else part


def _share_of(
    dataset: Dataset[Any], peers: Peers, shuffle: bool, seed: int
) -> DistributedSampler[Any] | None:
    """Give this rank its part of the data: a sampler, or its shards (an imported iterable splits itself)."""
    rank, count = peers.rank.rank, peers.count
    if isinstance(dataset, TarShards):
        dataset.rank, dataset.ranks = rank, count
    if isinstance(dataset, IterableDataset):
        return None
    return DistributedSampler(dataset, count, rank, shuffle=shuffle, seed=seed)


class Loop:
    """Runs epochs over `loader` until the first of `limits` is reached or `stop` asks for an end.

    With `peers` each step ends when all ranks have come to its end, and all ranks end after the same step.
    """

    def __init__(
        self,
        session: Session,
        accelerator: Accelerator,
        progress: Progress,
        limits: RunPart,
        stop: StopRequest,
        clock: Callable[[], float] = time.monotonic,
        peers: Peers | None = None,
    ) -> None:
        self._peers, self._agreed = peers, False
        self._session, self._accelerator, self._progress = session, accelerator, progress
        self._limits, self._stop, self._clock = limits, stop, clock
        self._step = 0
        self._started_s: float | None = None

    def train(self, loader: DataLoader[Any]) -> None:
        """Train, and wait for the device to finish. Raises what dataset, loader, device or record raise."""
        epoch = 0
        try:
            while not self._over() and epoch != self._limits.epochs:
                if isinstance(loader.sampler, DistributedSampler):
                    loader.sampler.set_epoch(epoch)
                self._epoch(loader)
                epoch += 1
            if self._peers is not None and not self._agreed:
                self._peers.meet(over=True)  # the others may have more data: they end here too
        finally:
            with suppress(RuntimeError):  # a device that failed has already raised
                self._accelerator.synchronize()
                self._report()
            self._session.event("run_end")

    def _epoch(self, loader: DataLoader[Any]) -> None:
        self._accelerator.request(self._step)  # the loop waits for the workers' start as well
        before = self._step
        for batch in self._batches(loader):
            self._submit(batch)
            if self._over():
                return
        if self._step == before:
            raise DataError(
                "the data set gave no batch",
                "make loader.batch_size smaller than the data set, or set loader.drop_last=false",
            )

    def _batches(self, loader: DataLoader[Any]) -> Any:
        for batch in loader:
            yield batch
            self._accelerator.request(self._step)

    def _submit(self, batch: Any) -> None:
        self._accelerator.submit(self._step, batch)
        self._session.steps.launched(self._step)
        if self._started_s is None:  # starting workers and compiling the model may take more than the rest
            self._started_s = self._clock()
        self._step += 1
        self._progress.samples += samples(batch)
        self._progress.steps = self._step
        self._report()
        if self._session.failure is not None:
            raise self._session.failure
        if self._peers is not None:
            start_ns = time.monotonic_ns()
            self._agreed = self._peers.meet(self._own_end())
            self._session.collective(self._step - 1, start_ns, time.monotonic_ns())

    def _report(self) -> None:
        """Hand on the times of the steps that have ended."""
        ended = self._accelerator.finished()
        self._session.steps.add_device_times(ended)
        for times in ended:
            self._progress.busy_ns += (times.compute_end_ns or 0) - (times.compute_start_ns or 0)
            self._progress.wait_ns += times.device_wait_ns or 0
        self._session.parts(self._accelerator.parts())
        self._progress.ready = self._session.steps.ready_batches

    def _over(self) -> bool:
        return self._own_end() if self._peers is None or self._step == 0 else self._agreed

    def _own_end(self) -> bool:
        if self._stop.requested or self._started_s is None:
            return self._stop.requested
        elapsed = self._progress.elapsed_s = self._clock() - self._started_s
        steps, seconds = self._limits.steps, self._limits.seconds
        return (steps is not None and self._step >= steps) or (seconds is not None and elapsed >= seconds)
