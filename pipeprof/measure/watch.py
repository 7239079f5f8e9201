"""Watches one loader of a session: gives its iterators their proxies, and takes the times of each step."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset

from pipeprof.measure import hook
from pipeprof.measure.proxies import PIGGYBACK, Collate, MapDataset, Probe, Sampler, WorkerInit
from pipeprof.measure.ring import Ring
from pipeprof.trace import MAIN_PROCESS

if TYPE_CHECKING:
    from pipeprof.measure.session import Session


class LoaderWatch:
    """The observer of one loader."""

    def __init__(self, session: Session, loader: DataLoader[Any], number: int, name: str) -> None:
        self.session, self.number, self.name = session, number, name
        self.epoch = -1
        self.facts = _facts(loader, number, name)

    def iterate(self, loader: DataLoader[Any], make: Callable[[], Any]) -> Any:
        """Make the loader's iterator with our proxies in it."""
        if not self.session.active:
            return make()
        watch = IteratorWatch(self, loader)
        with hook.disguised(loader, watch.parts(loader)):
            iterator = make()
        if hook.watch(iterator, watch):
            watch.ready(iterator)
        return iterator


class IteratorWatch:
    """Watches one torch iterator, over all its epochs where its workers persist."""

    def __init__(self, owner: LoaderWatch, loader: DataLoader[Any]) -> None:
        self.owner, self.session = owner, owner.session
        self.loader_number = owner.number
        self.workers = loader.num_workers
        self.ring = Ring(max(1, self.workers), self.session.ring_records)
        unbatched = loader.batch_size is None and loader.batch_sampler is None
        self.piggyback = self.workers > 0 and not getattr(loader, "in_order", True)
        self.probe = Probe(
            self.ring.block, self.session.ring_records, self.session.every_sample, unbatched, self.piggyback
        )
        self.taken = 0
        self._fresh = False
        self.gone = False

    def parts(self, loader: DataLoader[Any]) -> dict[str, Any]:
        """The proxies to put in the loader's place, by attribute."""
        probe = self.probe
        parts: dict[str, Any] = {"collate_fn": Collate(loader.collate_fn, probe)}
        if not isinstance(loader.dataset, IterableDataset):
            parts["dataset"] = MapDataset(loader.dataset, probe)
            name = "sampler" if loader.batch_sampler is None else "batch_sampler"
            parts[name] = Sampler(getattr(loader, name), probe, self.begin_epoch)
        if self.workers > 0:
            parts["worker_init_fn"] = WorkerInit(loader.worker_init_fn, probe)
        else:
            probe.start(MAIN_PROCESS, os.getpid())
        return parts

    def begin_epoch(self) -> int:
        """The first batch of a new epoch is being dispatched. Returns the epoch's number."""
        self.owner.epoch += 1
        self.taken = 0
        self.session.event("epoch_start", loader=self.loader_number, epoch=self.owner.epoch)
        return self.owner.epoch

    def ready(self, iterator: Any) -> None:
        """The iterator exists: its workers have been started."""
        self.session.watching(self)
        self._gone = weakref.finalize(iterator, self._mark_gone)
        self._gone.atexit = False
        self.session.event("workers_ready", loader=self.loader_number, epoch=max(0, self.owner.epoch))

    def _mark_gone(self) -> None:
        self.gone = True

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """One `next(iterator)` of the loop."""
        session = self.session
        if not session.active:
            return self._unwrap(original(iterator))[0]
        epoch = self.owner.epoch
        ready = self.ring.finished(epoch) - self.taken if self.workers and self.taken else None
        request = monotonic_ns()
        session.requested(request)
        try:
            data = original(iterator)
        except StopIteration:
            session.event("epoch_end", loader=self.loader_number, epoch=self.owner.epoch)
            raise
        take = monotonic_ns()
        data, key = self._unwrap(data) if self.piggyback else (data, None)
        session.took(self.loader_number, self.owner.epoch, self.taken, key, request, take, ready)
        self.taken += 1
        return data

    def _unwrap(self, data: Any) -> tuple[Any, tuple[int, int, int] | None]:
        # torch's pin thread turns a tuple into a list
        if type(data) in (tuple, list) and len(data) == 5 and data[0] is not None and data[0] == PIGGYBACK:
            return data[4], (data[1], data[2], data[3])
        return data, None


def _facts(loader: DataLoader[Any], number: int, name: str) -> dict[str, Any]:
    """What `run.json` says of a loader."""
    context = getattr(loader, "multiprocessing_context", None)
    iterable = isinstance(loader.dataset, IterableDataset)
    try:
        samples = None if iterable else len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        samples = None
    return {
        "id": number,
        "name": name,
        "batch_size": loader.batch_size,
        "workers": loader.num_workers,
        "prefetch": loader.prefetch_factor or 0,
        "in_order": getattr(loader, "in_order", True),
        "pin_memory": loader.pin_memory,
        "persistent_workers": loader.persistent_workers,
        "start_method": _start_method(context) if loader.num_workers else None,
        "dataset": type(loader.dataset).__name__,
        "iterable": iterable,
        "samples": samples,
    }


def _start_method(context: Any) -> str:
    import multiprocessing

    method = (context or multiprocessing).get_start_method()
    return str(method)
