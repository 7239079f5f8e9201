"""Watches torch iterators that were running when pipeprof came, and those that are made while it is
attached."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Final

import numpy.typing as npt
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from pipeprof.measure.attach.proxies import AttachedProbe, EnterWorker
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.layout import BATCH, Kind
from pipeprof.measure.probe.proxies import Mode, is_stateful
from pipeprof.measure.probe.ring import Ring
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.measure.session.hang import Waiting
from pipeprof.measure.session.loader_watch import IteratorWatch, LoaderWatch, Recorder, is_running
from pipeprof.record.names import counters
from pipeprof.record.schema import MAIN_PROCESS, MISSING

PRIVATE_OF_RUNNING: Final = (
    *("_dataset", "_num_workers", "_index_sampler", "_sampler_iter", "_auto_collation", "_num_yielded"),
    *("_dataset_fetcher", "_send_idx", "_rcvd_idx", "_task_info", "_data_queue", "_shutdown", "_workers"),
    *("_persistent_workers", "_pin_memory", "_prefetch_factor", "_in_order", "_worker_init_fn"),
)
"""torch's private names of an iterator that pipeprof reads while it runs; it changes `_sampler_iter`,
`_index_sampler` and the parts of `_dataset_fetcher`. An iterator without the first six is not observed."""


def live_iterators() -> list[Any]:
    """Return the iterators of this process that may still be asked for a batch."""
    kinds = [each for each in gc.get_objects() if issubclass(type(each), _BaseDataLoaderIter)]
    return [each for each in kinds if _is_live(each)]


def is_making_iterator() -> bool:
    """Return whether a thread of this process makes an iterator, or begins an epoch with one, right now."""
    innermost = frame = None
    try:
        for innermost in sys._current_frames().values():
            frame = innermost
            while frame is not None:
                code = frame.f_code
                if code.co_name in _MAKING and code.co_filename.endswith(_LOADERS):
                    return True
                frame = frame.f_back
        return False
    finally:
        del innermost, frame  # this function's own is among them, and would keep itself


_MAKING: Final = ("__init__", "_reset", "_get_iterator")
_LOADERS: Final = ("utils/data/dataloader.py", "stateful_dataloader.py")


def _part(iterator: Any, name: str, default: Any = None) -> Any:
    """Return a private part of an iterator; the default if torch's version has none."""
    return iterator.__dict__.get(name, default)


def _is_live(iterator: Any) -> bool:
    held = iterator.__dict__
    return all(name in held for name in PRIVATE_OF_RUNNING[:6]) and not _part(iterator, "_shutdown", False)


class AttachedLoader(LoaderWatch):
    """The observer of one loader, whose iterator may already be running."""

    def __init__(self, session: Recorder, loader: Any, number: int, name: str) -> None:
        super().__init__(session, loader, number, name)
        self.kind = _kind(loader)
        self.blocks = None  # it is watched for a while only, and every batch of that is wanted
        self.iterators: list[AttachedIterator] = []
        self.has_left = False

    def is_of(self, loader: Any) -> bool:
        """Return whether this is the observer of `loader`: the same data set in batches of the same kind."""
        return loader.dataset is self.dataset() and _kind(loader) == self.kind

    def leave(self) -> None:
        """Take everything of ours out of the loader's iterators. Called by the main thread."""
        self.has_left = True
        while self.iterators:
            self.iterators.pop(0).leave()

    def iterate(self, loader: DataLoader[Any], make: Callable[[], Any]) -> Any:
        """Make the loader's iterator, and watch it."""
        if not self.session.active:
            return make()
        self.iterated = True
        watch = AttachedIterator(self, loader.num_workers, _mode(loader))
        sampler = "sampler" if loader.batch_sampler is None else "batch_sampler"
        parts: dict[str, Any] = {sampler: noted(getattr(loader, sampler), watch)}
        if watch.workers:
            parts["worker_init_fn"] = EnterWorker(loader.worker_init_fn, watch.probe)
        began_ns = monotonic_ns()
        with hook.disguised(loader, parts):
            iterator = make()
        if watch.workers:
            tally.add(counters.STARTUP_MAKE_NS, monotonic_ns() - began_ns)
            iterator._worker_init_fn = loader.worker_init_fn
        watch.take_over(iterator, is_new=True)
        self.iterators.append(watch)
        if self.has_left:  # meanwhile
            watch.leave()
            watch.close()
        return iterator

    def enter(self, iterator: Any) -> AttachedIterator | None:
        """Watch an iterator that runs; None if it cannot be."""
        self.iterated = True
        watch = AttachedIterator(self, iterator._num_workers, _mode_of_running(iterator))
        if not watch.take_over(iterator, is_new=False):
            self.session.add_unseen(f"{self.name}: the class of its iterators cannot be changed")
            return None
        self.iterators.append(watch)
        return watch


class _Described:
    """A loader, or a part of it, by the attributes that describe it."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def loader_of(iterator: Any) -> Any:
    """Describe the loader of a running iterator, which holds its parts."""
    workers = list(_part(iterator, "_workers", ()))
    sampler = iterator._index_sampler
    context = None
    if workers:
        method = getattr(workers[0], "_start_method", None)
        context = _Described(get_start_method=lambda: method)
    return _Described(
        dataset=iterator._dataset,
        batch_size=getattr(sampler, "batch_size", None) if iterator._auto_collation else None,
        num_workers=iterator._num_workers,
        prefetch_factor=_part(iterator, "_prefetch_factor") if workers else None,
        in_order=_part(iterator, "_in_order", True),
        pin_memory=_part(iterator, "_pin_memory", False),
        persistent_workers=_part(iterator, "_persistent_workers", False),
        multiprocessing_context=context,
        worker_init_fn=_part(iterator, "_worker_init_fn"),
    )


def _kind(loader: Any) -> tuple[Any, ...]:
    return loader.num_workers, loader.batch_size


def _mode(loader: DataLoader[Any]) -> Mode:
    iterable = isinstance(loader.dataset, IterableDataset)
    return Mode(iterable, loader.batch_sampler is None, loader.num_workers, piggyback=False)


def _mode_of_running(iterator: Any) -> Mode:
    iterable = isinstance(iterator._dataset, IterableDataset)
    return Mode(iterable, not iterator._auto_collation, iterator._num_workers, piggyback=False)


class AttachedRing(Ring):
    """A ring whose batches get the time at which the loop dispatched them from the loop's own notes."""

    def __init__(self, slots: int, records: int) -> None:
        super().__init__(slots, records)
        self.dispatched_ns: dict[tuple[int, int], int] = {}
        """By epoch and seq, of batches that are not yet drained."""

    def drain(self, slot: int) -> npt.NDArray[Any]:
        """Take what the worker has counted, with the times of dispatch."""
        records = super().drain(slot)
        at = (records["kind"] == Kind.BATCH).nonzero()[0]
        if len(at):
            figures = records.view(BATCH.dtype)
            for n in at.tolist():
                row = figures[n]
                key = (int(row["epoch"]), int(row["seq"]))
                figures["dispatch_ns"][n] = self.dispatched_ns.pop(key, MISSING)
        return records


class AttachedIterator(IteratorWatch):
    """Watches one iterator until `leave`, or until it is gone."""

    ring: AttachedRing

    def __init__(self, owner: LoaderWatch, workers: int, mode: Mode) -> None:
        super().__init__(owner, workers, mode)
        self._whole_from: int | None = None
        """Number of this epoch's first batch that is observed from its begin; None if not yet known."""
        self._starts_observed = True
        """True if the workers are observed from their start; others are once they have been entered."""
        self._outstanding: set[int] = set()
        """Batches that were asked for before the loop's request, if they may come out of order."""
        self._inside = self._has_left = False
        self._waited_for: int | None = None
        """Batch for which the loop waited when pipeprof came."""

    def _make_ring(self, slots: int, records: int) -> AttachedRing:
        return AttachedRing(slots, records)

    def _make_probe(self, aides: SharedBlock | None) -> AttachedProbe:
        return AttachedProbe(self.number, self.ring.block, self.session.ring_records, self.mode, aides)

    @property
    def probe(self) -> AttachedProbe:
        """Return the state that this iterator's proxies share."""
        assert isinstance(self._probe, AttachedProbe)
        return self._probe

    def take_over(self, iterator: Any, is_new: bool) -> bool:
        """Watch the iterator from now on. False if its class cannot be changed."""
        if not hook.watch(iterator, self):
            return False
        self._iterator = weakref.ref(iterator)
        self._processes = hook.workers_of(iterator)
        self._starts_observed = is_new or self.workers == 0
        if not is_new:
            if self.workers == 0 or iterator._rcvd_idx < iterator._send_idx:  # else its loader keeps it
                self._begin_epoch(self._created_ns)
            self._whole_from = None
            first = iterator._num_yielded if self.workers == 0 else iterator._send_idx
            iterator._sampler_iter = payloads(iterator._sampler_iter, self, first)
        if self.workers == 0:
            self.probe.start(MAIN_PROCESS)
            self.probe.dress(iterator._dataset_fetcher)
        if is_new:
            self.made(iterator)
        else:
            iterator._index_sampler = noted(iterator._index_sampler, self)
            self.session.add_source(self)
            self.session.hold()
            self._gone = weakref.finalize(iterator, self._mark_gone)
            self._gone.atexit = False
            self._note_wait(iterator)
        return True

    def _note_wait(self, iterator: Any) -> None:
        """Note that the loop is already waiting for a batch, in the thread that lets pipeprof in or
        another."""
        innermost = frame = None
        try:
            for thread, innermost in sys._current_frames().items():
                frame = innermost
                while frame is not None:
                    if frame.f_code.co_name == "_next_data" and frame.f_locals.get("self") is iterator:
                        self._thread, self._waiting_ns = thread, monotonic_ns()
                        self._waited_for = getattr(iterator, "_rcvd_idx", None)
                    frame = frame.f_back
        finally:
            del innermost, frame  # this function's own is among them, and would keep itself and the iterator

    def waiting(self) -> Waiting | None:
        """Return how the loop waits; the wait in which pipeprof came is over with its batch."""
        iterator = self._iterator()
        if self._waited_for is not None and getattr(iterator, "_rcvd_idx", None) != self._waited_for:
            self._waited_for, self._waiting_ns = None, 0
        return super().waiting()

    def pids(self) -> list[int]:
        """Return the workers' process numbers, in their order; 0 for one that is gone."""
        return [process.pid if is_running(process) else 0 for process in self._processes]

    def ask_last(self) -> None:
        """Ask the workers for their lines and counts of the time since they last sent some."""
        self._sending.ask_last()

    def is_awaited(self) -> bool:
        """Return whether a worker that was asked for the last, and is alive, has not yet sent it."""
        alive = self.pids()
        return any(pid in alive for pid in self._sending.awaited())

    @property
    def _sending(self) -> Ring:
        """Return the ring through which workers send their counts."""
        return self.ring if self.aides is None else self.aides.ring

    def leave(self) -> None:
        """Take everything of ours out of the iterator. Called by the main thread, wherever it is."""
        self.ring.ask_last()
        iterator = self._iterator()
        self._gone.detach()
        if iterator is not None:
            hook.unwatch(iterator)
            for name in ("_sampler_iter", "_index_sampler"):
                part = getattr(iterator, name, None)
                if isinstance(part, (_Noted, _Payloads)):
                    setattr(iterator, name, part.real)
        if self.workers == 0:
            self.probe.undress()
            self._has_left = True
            if not self._inside:
                self.probe.stop()

    # -- what is asked for -------------------------------------------------------------------------------

    def _begin_epoch(self, asked_ns: int) -> int:
        epoch = super()._begin_epoch(asked_ns)
        self._whole_from = 0 if self._starts_observed or all(self.ring.threads()) else None
        self.ring.dispatched_ns.clear()
        self.ring.ask(epoch)
        return epoch

    def begin_epoch(self, asked_ns: int) -> None:
        """Note that the sampler is asked for an epoch's first indices."""
        if self.session.active:
            self._begin_epoch(asked_ns)

    def dispatch(self, seq: int, payloads: _Payloads) -> None:
        """Note that the indices of batch `seq` leave."""
        if not self.session.active:
            iterator = self._iterator()
            if iterator is not None and iterator._sampler_iter is payloads:
                iterator._sampler_iter = payloads.real
            return
        if self.workers == 0:
            self.probe.key_here = (self.epoch, seq)
        self.ring.dispatched_ns[self.epoch, seq] = monotonic_ns()
        if self._whole_from is None and (self.workers == 0 or all(self.ring.threads())):
            self._whole_from = seq

    # -- what is taken -------------------------------------------------------------------------------------

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """Time one `next(iterator)` of the loop."""
        if not self.session.active:
            return original(iterator)
        self._outstanding = set() if _part(iterator, "_in_order", True) else set(iterator._task_info)
        self._inside, self._waited_for = True, None
        try:
            return super().next(original, iterator)
        finally:
            self._inside = False
            if self._has_left:  # in the middle of it: a batch was being made in this thread
                self.probe.stop()

    def _next_unobserved(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        return original(iterator)

    def _count_ready(self, iterator: Any) -> int:
        """Count the batches that wait in the worker's queue, and those that came before their turn."""
        early = sum(len(info) == 2 for info in iterator._task_info.values())
        with suppress(NotImplementedError, OSError):  # macOS cannot tell the length of a queue
            early += int(iterator._data_queue.qsize())
        return early

    def _keyed(self, data: Any, iterator: Any) -> tuple[Any, tuple[int, int] | None]:
        key: tuple[int, int] | None = None
        if self.workers == 0:
            key = self.probe.key_here
        elif _part(iterator, "_in_order", True):
            key = (self.epoch, iterator._rcvd_idx - 1)
        else:
            taken = self._outstanding.difference(iterator._task_info)
            key = (self.epoch, taken.pop()) if len(taken) == 1 else None
        if self._whole_from is None or (key is not None and key[1] < self._whole_from):
            self.session.steps.warm_up()
        return data, key


# -- what gives the indices ------------------------------------------------------------------------------


class _Forwards:
    """Forwards what it does not know to the object in whose place it stands."""

    def __init__(self, real: Any, watch: AttachedIterator) -> None:
        self.real, self.watch = real, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)

    def __len__(self) -> int:
        return len(self.real)


class _Stateful:
    real: Any

    def state_dict(self) -> Any:
        """Return the state of the object in whose place this stands."""
        return self.real.state_dict()

    def load_state_dict(self, state: Any) -> Any:
        """Hand the state on."""
        return self.real.load_state_dict(state)


class _Noted(_Forwards):
    """A sampler: each of its iterators begins an epoch with its first indices."""

    def __iter__(self) -> Any:
        asked_ns = monotonic_ns()
        return payloads(iter(self.real), self.watch, 0, asked_ns)


class _Payloads(_Forwards):
    """The iterator of a sampler: the same indices, and a note of when they leave."""

    def __init__(self, real: Any, watch: AttachedIterator, seq: int, asked_ns: int | None) -> None:
        super().__init__(real, watch)
        self.seq, self.asked_ns = seq, asked_ns

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.asked_ns is not None:
            self.watch.begin_epoch(self.asked_ns)
            self.asked_ns = None
        payload = next(self.real)
        self.watch.dispatch(self.seq, self)
        self.seq += 1
        return payload


class _StatefulNoted(_Stateful, _Noted):
    """Variant that implements torchdata's Stateful protocol."""


class _StatefulPayloads(_Stateful, _Payloads):
    """Variant that implements torchdata's Stateful protocol."""


def noted(sampler: Any, watch: AttachedIterator) -> Any:
    """Return the proxy for a sampler or batch sampler."""
    return (_StatefulNoted if is_stateful(sampler) else _Noted)(sampler, watch)


def payloads(iterator: Any, watch: AttachedIterator, seq: int, asked_ns: int | None = None) -> Any:
    """Return the proxy for a sampler's iterator, of which batch `seq` comes next."""
    kind = _StatefulPayloads if is_stateful(iterator) else _Payloads
    return kind(iterator, watch, seq, asked_ns)
