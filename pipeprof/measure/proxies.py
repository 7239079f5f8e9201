"""What a torch iterator is given in place of the loader's own parts: the same behaviour, with a clock.

The proxies stand for the public `dataset`, `collate_fn`, `worker_init_fn` and sampler of a loader. A torch
iterator captures them when it is made, and users never see them. The sampler's proxy sends each batch's key
along with its indices, so that the records of a worker know their batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from torch.utils.data import get_worker_info

from pipeprof.measure import stages
from pipeprof.measure.batch import size_bytes
from pipeprof.measure.batch_recorder import BatchRecorder
from pipeprof.measure.counters import UNSEEN
from pipeprof.measure.recorder import COLLATE, GETITEM, NOWHERE, Mark, span
from pipeprof.measure.ring import Slot
from pipeprof.measure.samples import Fetch, count, many_samples, one_sample
from pipeprof.measure.shared import SharedBlock
from pipeprof.trace import MAIN_PROCESS

PIGGYBACK: Final = "pipeprof:batch"
"""Marks a batch that carries its key: (PIGGYBACK, epoch, seq, the batch)."""


_COLLATING: Final = Mark(COLLATE, NOWHERE)

BeginEpoch = Callable[[int], int]
"""Told when the sampler was asked for an iterator; gives the epoch's number."""


class Key(NamedTuple):
    """Which batch, and when its indices left the main process."""

    epoch: int
    seq: int
    dispatch_ns: int


class Mode(NamedTuple):
    """How a loader asks for its batches, which decides how keys travel."""

    iterable: bool
    unbatched: bool
    """`batch_size=None`: an item counts as one sample."""
    workers: int
    piggyback: bool
    """Batches carry their key back: nothing else tells which one the loop has taken."""


class Probe:
    """What the proxies of one iterator share, in the main process and in each worker."""

    def __init__(self, block: SharedBlock, records: int, every_sample: bool, mode: Mode, epoch: int) -> None:
        self.block, self.records, self.every_sample, self.mode = block, records, every_sample, mode
        self.epoch = epoch
        """Of the batches whose keys cannot be sent: counted where they are made."""
        self.recorder: BatchRecorder | None = None
        self.made = 0
        """Such batches of this epoch."""
        self.worker = MAIN_PROCESS

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recorder": None}

    def start(self, worker: int) -> None:
        """Begin to record in this process, as `worker`; the main process writes the first slot."""
        self.worker = worker
        slot = Slot(self.block, max(worker, 0), self.records, threading.get_native_id())
        self.recorder = BatchRecorder(slot, self.every_sample, self.mode.iterable)
        stages.install()
        slot.ready(monotonic_ns())


class _Proxy:
    """Forwards what it does not know to the real thing."""

    def __init__(self, real: Any, probe: Probe) -> None:
        self._pipeprof_real = real
        self._pipeprof_probe = probe

    def __reduce__(self) -> Any:
        return type(self), (self._pipeprof_real, self._pipeprof_probe)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_pipeprof_"):
            raise AttributeError(name)
        return getattr(self._pipeprof_real, name)

    def __len__(self) -> int:
        return len(self._pipeprof_real)


class _State:
    """`isinstance(proxy, torchdata's Stateful)` looks for real methods, not for `__getattr__`'s."""

    _pipeprof_real: Any

    def state_dict(self) -> Any:
        """The real thing's."""
        return self._pipeprof_real.state_dict()

    def load_state_dict(self, state: Any) -> Any:
        """The real thing's."""
        return self._pipeprof_real.load_state_dict(state)


def _is_stateful(real: Any) -> bool:
    return hasattr(real, "state_dict") and hasattr(real, "load_state_dict")


# -- map-style data sets ---------------------------------------------------------------------------------


class MapDataset(_Proxy):
    """A map-style data set. It always offers `__getitems__`: one hop a batch."""

    def __getitem__(self, asked: Any) -> Any:
        return self._pipeprof_fetch(asked, one_sample)

    def __getitems__(self, asked: Any) -> Any:
        return self._pipeprof_fetch(asked, many_samples)

    def _pipeprof_fetch(self, asked: Any, fetch: Fetch) -> Any:
        epoch, seq, dispatch_ns, payload = asked
        recorder = self._pipeprof_probe.recorder or _recorder(self._pipeprof_probe)
        recorder.begin(epoch, seq, dispatch_ns)
        try:
            samples = fetch(self._pipeprof_real, recorder, payload)
        except BaseException:
            recorder.fail()
            raise
        recorder.fetched(
            len(payload) if isinstance(payload, (list, tuple)) else count(payload, samples, fetch)
        )
        return samples


class StatefulMapDataset(_State, MapDataset):
    """One with a state of its own."""


def _recorder(probe: Probe) -> BatchRecorder:
    if probe.recorder is None:  # a thread or process that torch started in its own way
        probe.start(probe.worker)
    assert probe.recorder is not None
    return probe.recorder


# -- iterable data sets ----------------------------------------------------------------------------------


class _Asked(threading.local):
    key: Key | None = None


_asked: Final = _Asked()


class AskedBatch:
    """What a fetcher of an iterable data set loops over: when it begins, so does the batch."""

    def __init__(self, key: Key, payload: Any) -> None:
        self.key, self.payload = key, payload

    def __len__(self) -> int:
        return len(self.payload)

    def __iter__(self) -> Iterator[Any]:
        _asked.key = self.key
        return iter(self.payload)


class SampleIterator(_Proxy):
    """The iterator of an iterable data set."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        recorder = self._pipeprof_begun()
        before_ns = recorder.inner_ns
        try:
            with span(GETITEM):
                sample = next(self._pipeprof_real)
        except StopIteration:
            recorder.exhausted()
            if self._pipeprof_probe.mode.unbatched:
                self._pipeprof_probe.made -= 1
            raise
        except BaseException:
            recorder.fail()
            raise
        took_ns = recorder.inner_ns - before_ns
        recorder.slowest_ns = max(recorder.slowest_ns, took_ns)  # it has no index
        return sample

    def _pipeprof_begun(self) -> BatchRecorder:
        """The recorder, with a batch begun that knows its key."""
        probe = self._pipeprof_probe
        recorder = _recorder(probe)
        key, _asked.key = _asked.key, None
        if key is not None:
            recorder.begin(*key)
        elif not recorder.open:
            # Without batching torch sends no indices: the key is made here, unique by worker.
            seq = probe.made * max(1, probe.mode.workers) + max(0, probe.worker)
            probe.made += 1
            recorder.begin(probe.epoch, seq, UNSEEN)
        return recorder


class StatefulSampleIterator(_State, SampleIterator):
    """One with a state of its own."""


class IterableProxy(SampleIterator):
    """An iterable data set. One that is its own iterator stays so, as StatefulDataLoader looks for that."""

    def __iter__(self) -> Iterator[Any]:
        probe, real = self._pipeprof_probe, self._pipeprof_real
        probe.epoch, probe.made = probe.epoch + 1, 0
        if probe.recorder is not None:
            probe.recorder.abandon()  # the last epoch ended with a batch that was dropped
        iterator = iter(real)
        if iterator is real:
            return self
        return (StatefulSampleIterator if _is_stateful(iterator) else SampleIterator)(iterator, probe)


class StatefulIterableProxy(_State, IterableProxy):
    """One with a state of its own."""


# -- the other parts -------------------------------------------------------------------------------------


class Collate(_Proxy):
    """A collate function, and the end of a batch."""

    def __call__(self, samples: Any) -> Any:
        """The batch."""
        probe = self._pipeprof_probe
        recorder = probe.recorder
        if recorder is None or not recorder.open:
            return self._pipeprof_real(samples)
        if probe.mode.iterable:
            recorder.samples = 1 if probe.mode.unbatched else len(samples)
        before_ns = recorder.inner_ns
        began_ns = monotonic_ns()
        try:
            if recorder.plain:  # a span without its object
                recorder.current = _COLLATING
                batch = self._pipeprof_real(samples)
            else:
                with span(COLLATE):
                    batch = self._pipeprof_real(samples)
        except BaseException:
            if recorder.plain:
                recorder.collate_ns = monotonic_ns() - began_ns - recorder.inner_ns + before_ns
            recorder.fail()
            raise
        finish_ns = monotonic_ns()
        if recorder.plain:
            recorder.collate_ns = finish_ns - began_ns - recorder.inner_ns + before_ns
        try:
            size = size_bytes(batch)
        except Exception:  # a sparse tensor has no size, a list may hold itself: no business of the user's
            size = UNSEEN
        recorder.finish(size, finish_ns)
        return (PIGGYBACK, *recorder.key, batch) if probe.mode.piggyback else batch


class WorkerInit(_Proxy):
    """The first of ours to run in a worker."""

    def __call__(self, worker: int) -> None:
        """Begin to record; then the user's own function."""
        self._pipeprof_probe.start(worker)
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _Proxy):
            # WorkerInfo is frozen; the user's code must meet the user's data set.
            object.__setattr__(info, "dataset", info.dataset._pipeprof_real)
        if self._pipeprof_real is not None:
            self._pipeprof_real(worker)


class SamplerProxy(_Proxy):
    """A sampler or batch sampler in the main process: each payload leaves with its key."""

    def __init__(self, real: Any, probe: Probe, begin_epoch: BeginEpoch) -> None:
        super().__init__(real, probe)
        self._pipeprof_begin_epoch = begin_epoch

    def __iter__(self) -> Iterator[Any]:
        payloads = iter(self._pipeprof_real)
        kind = StatefulPayloads if _is_stateful(payloads) else Payloads
        return kind(payloads, self._pipeprof_probe, self._pipeprof_begin_epoch)


class StatefulSamplerProxy(_State, SamplerProxy):
    """One with a state of its own."""


class Payloads(_Proxy):
    """The iterator of a sampler. torch makes some that it never uses: an epoch begins with the first item."""

    def __init__(self, real: Any, probe: Probe, begin_epoch: BeginEpoch) -> None:
        super().__init__(real, probe)
        self._pipeprof_begin_epoch = begin_epoch
        self._pipeprof_mode = probe.mode
        self._pipeprof_asked_ns = monotonic_ns()
        self._pipeprof_epoch = self._pipeprof_seq = -1

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._pipeprof_epoch < 0:
            self._pipeprof_epoch = self._pipeprof_begin_epoch(self._pipeprof_asked_ns)
            self._pipeprof_probe.epoch = self._pipeprof_epoch  # of keys that are made in this process
        payload = next(self._pipeprof_real)
        self._pipeprof_seq += 1
        mode = self._pipeprof_mode
        if not mode.iterable:
            return self._pipeprof_epoch, self._pipeprof_seq, monotonic_ns(), payload
        if mode.unbatched:
            return payload
        return AskedBatch(Key(self._pipeprof_epoch, self._pipeprof_seq, monotonic_ns()), payload)


class StatefulPayloads(_State, Payloads):
    """One with a state of its own."""


def proxy_dataset(real: Any, probe: Probe) -> Any:
    """The proxy for a data set of either style."""
    if not probe.mode.iterable:
        return (StatefulMapDataset if _is_stateful(real) else MapDataset)(real, probe)
    return (StatefulIterableProxy if _is_stateful(real) else IterableProxy)(real, probe)


def proxy_sampler(real: Any, probe: Probe, begin_epoch: BeginEpoch) -> Any:
    """The proxy for a sampler or batch sampler."""
    kind = StatefulSamplerProxy if _is_stateful(real) else SamplerProxy
    return kind(real, probe, begin_epoch)
