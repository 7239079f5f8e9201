"""Watches one loader of a session: gives its iterators their proxies, and takes the times of each step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from pipeprof.measure import hook
from pipeprof.measure.finished import Finished
from pipeprof.measure.proxies import (
    PIGGYBACK,
    Collate,
    Mode,
    Probe,
    WorkerInit,
    proxy_dataset,
    proxy_sampler,
)
from pipeprof.measure.ring import Ring
from pipeprof.measure.scratch import remove_unfinished
from pipeprof.trace import MAIN_PROCESS

if TYPE_CHECKING:
    from pipeprof.measure.session import Session


class LoaderWatch:
    """The observer of one loader."""

    def __init__(self, session: Session, loader: DataLoader[Any], number: int, name: str) -> None:
        self.session, self.number, self.name = session, number, name
        self.epoch = -1
        self.iterated = False
        """Or another loader in its stead."""
        self.facts = _facts(loader, number, name)
        self.dataset: Callable[[], Any] = _weakly(loader.dataset)

    def was_rebuilt_as(self, loader: DataLoader[Any]) -> bool:
        """Whether `loader` is iterated in the stead of ours, which never was: their data set is one."""
        return not self.iterated and loader.dataset is self.dataset()

    def iterate(self, loader: DataLoader[Any], make: Callable[[], Any]) -> Any:
        """Make the loader's iterator with our proxies in it."""
        if not self.session.active:
            return make()
        self.iterated = True
        watch = IteratorWatch(self, loader)
        with hook.disguised(loader, watch.parts(loader)):
            iterator = make()
        if hook.watch(iterator, watch):
            watch.made(iterator)
        else:
            self.session.unseen(f"{self.name}: the class of its iterators cannot be changed")
        return iterator


class IteratorWatch:
    """Watches one torch iterator, over all its epochs where its workers persist."""

    def __init__(self, owner: LoaderWatch, loader: DataLoader[Any]) -> None:
        self.owner, self.session = owner, owner.session
        self.loader_number = owner.number
        self.workers = loader.num_workers
        self.mode = _mode(loader)
        self.ring = Ring(max(1, self.workers), self.session.ring_records)
        self.finished: dict[int, Finished] = {}
        """By epoch, the batches that were finished and are not yet known to be taken."""
        self.epoch = -1
        self.gone = False
        self._counts_ready = self.workers > 0
        self._processes: list[Any] = []
        self._lost: set[int] = set()
        self._taken = 0
        self._created_ns = monotonic_ns()
        self._probe = Probe(
            self.ring.block, self.session.ring_records, self.session.every_sample, self.mode, owner.epoch
        )

    def parts(self, loader: DataLoader[Any]) -> dict[str, Any]:
        """The proxies to put in the loader's place, by attribute."""
        if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
            # torch asks for their very class: only the loop's side is observed
            self._counts_ready = False
            self._begin_epoch(self._created_ns)
            self.session.unseen(f"{self.owner.name}: the inside of a DataPipe")
            return {}
        probe = self._probe
        sampler = "sampler" if loader.batch_sampler is None else "batch_sampler"
        parts = {
            "dataset": proxy_dataset(loader.dataset, probe),
            "collate_fn": Collate(loader.collate_fn, probe),
            sampler: proxy_sampler(getattr(loader, sampler), probe, self._begin_epoch),
        }
        if self.workers > 0:
            parts["worker_init_fn"] = WorkerInit(loader.worker_init_fn, probe)
        else:
            probe.start(MAIN_PROCESS)
        return parts

    def made(self, iterator: Any) -> None:
        """The iterator exists: its workers have been started."""
        self.session.add_watch(self)
        self.session.hold()
        self._processes = hook.workers_of(iterator)
        weakref.finalize(iterator, self._mark_gone).atexit = False
        self.session.event("workers_ready", loader=self.loader_number, epoch=max(0, self.epoch))

    def _mark_gone(self) -> None:
        self.gone = True
        if self.session.active:
            self.tell_lost()
        self.session.release()

    def tell_lost(self) -> None:
        """Tell once of each worker that ended by itself: torch's error may come up anywhere in the loop."""
        for worker, process in enumerate(self._processes):
            if worker not in self._lost and _ended_itself(process, self.gone):
                self._lost.add(worker)
                pid = str(process.pid)
                self.session.event(
                    "worker_lost", loader=self.loader_number, epoch=self.epoch, worker=worker, detail=pid
                )
                if self.session.kind == "bench":
                    remove_unfinished(process.pid)

    def _begin_epoch(self, asked_ns: int) -> int:
        first = self.epoch < 0
        self.owner.epoch += 1
        self.epoch, self._taken = self.owner.epoch, 0
        self.session.event(
            "epoch_start",
            loader=self.loader_number,
            epoch=self.epoch,
            time_ns=self._created_ns if first else asked_ns,
        )
        return self.epoch

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """One `next(iterator)` of the loop."""
        session = self.session
        if not session.active:
            return self._next_unobserved(original, iterator)
        ready = self.ring.finished(self.epoch) - self._taken if self._counts_ready else None
        request_ns = monotonic_ns()
        session.requested(request_ns)
        try:
            data = original(iterator)
        except StopIteration:
            self._ended()
            raise
        except BaseException:
            self._failed()
            raise
        take_ns = monotonic_ns()
        key = None
        if self.mode.piggyback:
            data, key = self._unwrap(data)
        elif self.workers == 0 and self._probe.recorder is not None:
            key = self._probe.recorder.key  # of the batch that this process has just made
        session.took(self, self._taken, key, request_ns, take_ns, ready)
        self._taken += 1
        return data

    def _next_unobserved(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """After the run: the proxies still are in the iterator, and give no record to anyone."""
        try:
            return self._unwrap(original(iterator))[0]
        except BaseException:
            if self._probe.recorder is not None:
                self._probe.recorder.abandon()  # it would stay this thread's sink
            raise

    def _unwrap(self, data: Any) -> tuple[Any, tuple[int, int] | None]:
        # torch's pin thread turns a tuple into a list
        if type(data) in (tuple, list) and len(data) == 4 and type(data[0]) is str and data[0] == PIGGYBACK:
            return data[3], (data[1], data[2])
        return data, None

    def _ended(self) -> None:
        if self._probe.recorder is not None:
            self._probe.recorder.abandon()
        self.session.event("epoch_end", loader=self.loader_number, epoch=self.epoch)
        self.session.left_loop()

    def _failed(self) -> None:
        if self._probe.recorder is not None:
            self._probe.recorder.fail()
        self.tell_lost()

    def busy_threads(self) -> list[tuple[int, int]]:
        """Worker number and thread of each worker that makes a batch now."""
        threads = self.ring.threads()
        return [(slot, threads[slot]) for slot in range(self.ring.slots) if self.ring.busy(slot)]

    def threads(self) -> list[int]:
        """The thread of each worker."""
        return self.ring.threads()

    def let_go(self) -> None:
        """In a forked child: record nothing more through what the parent has."""
        self._probe.recorder = None


def _weakly(dataset: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(dataset)
    except TypeError:  # a list, for one
        return lambda: None


def _ended_itself(process: Any, shut_down: bool) -> bool:
    """Whether a worker was killed or failed. One that torch has not shut down is looked at without taking its
    exit code, which torch then could not find: it would need five seconds more to see the loss.
    """
    if not shut_down:
        with suppress(ChildProcessError, AttributeError):  # reaped, or a fork server's; no waitid on Windows
            found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return found is not None and (found.si_code != os.CLD_EXITED or found.si_status != 0)
    return process.exitcode not in (None, 0, -signal.SIGTERM)  # torch terminates the slow to leave


def _mode(loader: DataLoader[Any]) -> Mode:
    iterable = isinstance(loader.dataset, IterableDataset)
    workers = loader.num_workers
    # In order, the batches of a map-style set are taken by number; else each must carry its own back. So must
    # they where a StatefulDataLoader resumes: it takes some that the loop never sees.
    resumes = getattr(loader, "next_iter_state", None) is not None
    piggyback = workers > 0 and (iterable or resumes or not getattr(loader, "in_order", True))
    return Mode(iterable, loader.batch_sampler is None, workers, piggyback)


def _facts(loader: DataLoader[Any], number: int, name: str) -> dict[str, Any]:
    """What `run.json` says of a loader."""
    iterable = isinstance(loader.dataset, IterableDataset)
    try:
        samples = None if iterable else len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        samples = None
    context = getattr(loader, "multiprocessing_context", None) or multiprocessing
    return {
        "id": number,
        "name": name,
        "batch_size": loader.batch_size,
        "workers": loader.num_workers,
        "prefetch": loader.prefetch_factor,  # None without workers
        "in_order": getattr(loader, "in_order", True),
        "pin_memory": loader.pin_memory,
        "persistent_workers": loader.persistent_workers,
        "start_method": context.get_start_method() if loader.num_workers else None,
        "dataset": type(loader.dataset).__name__,
        "iterable": iterable,
        "samples": samples,
    }
