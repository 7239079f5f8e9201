"""Proxies that a torch iterator gets in place of the loader's own parts: the same behaviour, with a clock.

The proxies stand for the public `dataset`, `collate_fn`, `worker_init_fn` and sampler of a loader. A torch
iterator captures them when it is made, and users never see them. The sampler's proxy sends each batch's key
along with its indices, so that the records of a worker know their batch.
"""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from torch.utils.data import BatchSampler, get_worker_info

from pipeprof.measure.probe import auto_stages as stages
from pipeprof.measure.probe import handover
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import gc_watch, opens, stream, tally
from pipeprof.measure.probe.counting.levels import process_age_ns
from pipeprof.measure.probe.counting.sending import CountSender
from pipeprof.measure.probe.own_frames import hide_in_worker
from pipeprof.measure.probe.ring import Slot
from pipeprof.measure.probe.sampling.worker_aide import AIDE_RECORDS, WorkerAide
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.measure.probe.spans import COLLATE, GETITEM, NOWHERE, Mark, span
from pipeprof.measure.probe.tensors import size_bytes
from pipeprof.measure.probe.unprobed import Blocks
from pipeprof.record.names import counters
from pipeprof.record.schema import MAIN_PROCESS, MISSING
from pipeprof.vocabulary import owners

PIGGYBACK: Final = "pipeprof:batch"
"""Marks a batch that carries its key: (PIGGYBACK, epoch, seq, the batch)."""


_COLLATING: Final = Mark(COLLATE, NOWHERE)
_GETTING: Final = Mark(GETITEM, NOWHERE)

BeginEpoch = Callable[[int], int]
"""Begins an epoch: takes when the sampler was asked for an iterator, returns the epoch's number."""


class Key(NamedTuple):
    """Batch number, and the time at which its indices left the main process."""

    epoch: int
    seq: int
    dispatch_ns: int


class Mode(NamedTuple):
    """Way in which a loader requests its batches, which decides how keys travel."""

    iterable: bool
    unbatched: bool
    """`batch_size=None`: an item counts as one sample."""
    workers: int
    piggyback: bool
    """Batches carry their key back: nothing else shows which one the loop has taken."""


class Probe:
    """State that the proxies of one iterator share, in the main process and in each worker."""

    def __init__(
        self,
        number: int,
        block: SharedBlock,
        records: int,
        every_sample: bool,
        mode: Mode,
        epoch: int,
        aides: SharedBlock | None = None,
    ) -> None:
        self.number = number
        """Number of the iterator, unique in the process that iterates."""
        self.block, self.records, self.every_sample, self.mode = block, records, every_sample, mode
        self.aides = aides
        """The ring of the workers' aides; None if lines are not sampled."""
        self.epoch = epoch
        """Epoch of the batches whose keys cannot be sent: counted where they are made."""
        self.recorder: BatchRecorder | None = None
        self.created_ns = monotonic_ns()
        self.modules = 0
        """Modules that were loaded when stages were looked for last."""
        self.made = self.items_noted = 0
        """Such batches of this epoch."""
        self.worker = MAIN_PROCESS
        self.counts: CountSender | None = None
        """Sends the counts of a worker without an aide."""
        self.slot: Slot | None = None
        self.aide: WorkerAide | None = None
        self.unprobed_after: int | None = None
        """Batches of a worker after which some are made unprobed; None if it makes none so."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recorder": None, "counts": None, "slot": None, "aide": None}

    def look_for_stages(self) -> None:
        """Time the stages of libraries that have been loaded since the last call."""
        self.modules = len(sys.modules)
        stages.install()

    def note_item(self, item: Any) -> None:
        """Note one of the first items of a stream, if several workers may give the same."""
        self.items_noted += 1
        if self.worker == MAIN_PROCESS or self.mode.workers < 2:
            return
        digest = stream.digest(item)
        if digest is not None:
            tally.note(counters.STREAM_ITEM, digest)

    def start(self, worker: int) -> None:
        """Begin to record in this process, as `worker`; the main process writes the first slot."""
        self.worker = worker
        self.slot = slot = Slot(self.block, max(worker, 0), self.records, threading.get_native_id())
        self.recorder = BatchRecorder(slot, self.every_sample, self.mode.iterable)
        if worker != MAIN_PROCESS and self.unprobed_after is not None:
            self.recorder.blocks = Blocks(self.unprobed_after)
        self.look_for_stages()
        gc_watch.WATCH.start()
        opens.forget_files()
        if worker == MAIN_PROCESS:
            return  # its counts are taken where the records are written
        if self.aides is None:
            self.counts = CountSender(self.recorder, slot)
            return
        aide_slot = Slot(self.aides, worker, AIDE_RECORDS, threading.get_native_id())
        self.aide = WorkerAide(self.recorder, aide_slot)
        self.aide.start()

    def stop(self) -> None:
        """Stop recording in this process, and unmap the rings, except those that it drains itself.

        Called by the thread that makes batches.
        """
        if self.aide is not None:
            self.aide.stop()
            self.aide.close()
        if self.recorder is not None:
            self.recorder.abandon()  # it would stay this thread's sink
            self.recorder.run_queue.close()
        if self.slot is not None:
            self.slot.close()
        self.recorder = self.counts = self.slot = self.aide = None
        for block in (self.block, self.aides):
            if block is not None and not block.is_made_here:
                block.close()


class Proxy:
    """Forwards what it does not know to the wrapped object."""

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
        """Return the state of the wrapped object."""
        return self._pipeprof_real.state_dict()

    def _pipeprof_state_with_batch(self, probe: Probe) -> Any:
        """Return the state, in a worker as a part of the batch that it is to travel with."""
        if probe.recorder is None or probe.worker == MAIN_PROCESS:
            return self._pipeprof_real.state_dict()
        with probe.recorder.afterwards(owners.STATE):
            state = self._pipeprof_real.state_dict()
        handover.note_state(*probe.recorder.key)
        return state

    def load_state_dict(self, state: Any) -> Any:
        """Hand the state on to the wrapped object."""
        return self._pipeprof_real.load_state_dict(state)


def is_stateful(real: Any) -> bool:
    """Return whether an object implements torchdata's Stateful protocol."""
    try:
        return hasattr(real, "state_dict") and hasattr(real, "load_state_dict")
    except Exception:  # a `__getattr__` of the user's may raise anything for a name that it does not know
        return False


# -- map-style data sets ---------------------------------------------------------------------------------

Fetch = Callable[[Any, BatchRecorder, Any], Any]
"""Asks a data set for what a sampler gave."""

_WORD_BITS: Final = 63
"""Bits of a number in a record, not counting its sign."""


def one_sample(real: Any, recorder: BatchRecorder, index: Any) -> Any:
    """Fetch what torch asks for without batching: one sample, or whatever the set makes of the index."""
    return real[index]


def many_samples(real: Any, recorder: BatchRecorder, indices: Any) -> Any:
    """Fetch the samples of a batch, and note the slowest."""
    many = getattr(real, "__getitems__", None)
    if many:
        return many(indices)
    if recorder.keeping:
        return [_kept(real, recorder, index) for index in indices]
    if recorder.tiny_samples:
        return _each_of(real, indices)
    samples = []
    slowest = slowest_index = MISSING
    before = monotonic_ns()
    for index in indices:
        samples.append(real[index])
        now = monotonic_ns()
        if now - before > slowest:
            slowest, slowest_index = now - before, index
        before = now
    recorder.slowest_ns, recorder.slowest_index = slowest, _number(slowest_index)
    return samples


def _each_of(real: Any, indices: Any) -> list[Any]:
    """Fetch the samples of a batch.

    From Python 3.12 on a comprehension would leave no index behind that shows which sample failed.
    """
    samples = []
    for index in indices:
        samples.append(real[index])
    return samples


def _kept(real: Any, recorder: BatchRecorder, index: Any) -> Any:
    recorder.sample = _number(index)
    before = monotonic_ns()
    with span(GETITEM):
        sample = real[index]
    took = monotonic_ns() - before
    if took > recorder.slowest_ns:
        recorder.slowest_ns, recorder.slowest_index = took, recorder.sample
    recorder.sample = MISSING
    return sample


def _number(index: Any) -> int:
    """Return an index, numpy's and torch's too, as a record holds it.

    `MISSING` for a key that is not a number, and for a number that is too large, as a hash is.
    """
    try:
        number = operator.index(index)
    except Exception:  # a foreign index may refuse in any way
        return MISSING
    return number if number.bit_length() <= _WORD_BITS else MISSING


def count(asked: Any, samples: Any, fetch: Fetch) -> int:
    """Count the samples that were fetched for `asked`, if that is not a list.

    It may be an array or a range of indices, one index, one key.
    """
    if isinstance(asked, (str, bytes, Mapping)):
        return 1
    try:
        return len(asked)
    except Exception:  # a number; a tensor of no dimension; indices that come one by one
        return len(samples) if fetch is many_samples and isinstance(samples, list) else 1


class MapDataset(Proxy):
    """A map-style data set. It always offers `__getitems__`: one hop a batch."""

    def __getitem__(self, asked: Any) -> Any:
        return self._pipeprof_fetch(asked, one_sample)

    def __getitems__(self, asked: Any) -> Any:
        return self._pipeprof_fetch(asked, many_samples)

    def _pipeprof_fetch(self, asked: Any, fetch: Fetch) -> Any:
        turned_ns = monotonic_ns()
        epoch, seq, dispatch_ns, payload = asked
        recorder = self._pipeprof_probe.recorder or _recorder(self._pipeprof_probe)
        recorder.begin(epoch, seq, dispatch_ns, turned_ns)
        recorder.asked = payload
        if recorder.unprobed:
            return _fetch_unprobed(self._pipeprof_real, recorder, payload, fetch)
        try:
            samples = fetch(self._pipeprof_real, recorder, payload)
        except BaseException as error:
            recorder.fail(error)
            raise
        recorder.fetched(
            len(payload) if isinstance(payload, (list, tuple)) else count(payload, samples, fetch)
        )
        return samples


def _fetch_unprobed(real: Any, recorder: BatchRecorder, payload: Any, fetch: Fetch) -> Any:
    """Fetch as torch does, and count the samples."""
    try:
        if fetch is not many_samples:
            samples = real[payload]
        else:
            many = getattr(real, "__getitems__", None)
            samples = many(payload) if many else _each_of(real, payload)
    except BaseException as error:
        recorder.fail(error)
        raise
    plain = isinstance(payload, (list, tuple))
    recorder.samples = len(payload) if plain else count(payload, samples, fetch)
    return samples


class StatefulMapDataset(_State, MapDataset):
    """Variant that implements torchdata's Stateful protocol."""

    def state_dict(self) -> Any:
        """Return the state of the wrapped object."""
        return self._pipeprof_state_with_batch(self._pipeprof_probe)


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
    """Indices that a fetcher of an iterable data set loops over: when it begins, so does the batch."""

    def __init__(self, key: Key, payload: Any) -> None:
        self.key, self.payload = key, payload

    def __len__(self) -> int:
        return len(self.payload)

    def __iter__(self) -> Iterator[Any]:
        _asked.key = self.key
        return iter(self.payload)


class SampleIterator(Proxy):
    """The iterator of an iterable data set."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        recorder = self._pipeprof_begun()
        before_ns = recorder.inner_ns
        try:
            if recorder.unprobed:
                sample = next(self._pipeprof_real)
            elif recorder.plain:
                sample = self._pipeprof_next_plain(recorder)
            else:
                with span(GETITEM):
                    sample = next(self._pipeprof_real)
        except StopIteration:
            recorder.exhausted()
            if self._pipeprof_probe.mode.unbatched:
                self._pipeprof_probe.made -= 1
            raise
        except BaseException as error:
            recorder.fail(error)
            raise
        if recorder.unprobed:
            recorder.gave_sample = True
            return sample
        took_ns = recorder.inner_ns - before_ns
        recorder.slowest_ns = max(recorder.slowest_ns, took_ns)  # it has no index
        if self._pipeprof_probe.items_noted < stream.MOST_ITEMS:
            self._pipeprof_probe.note_item(sample)
        return sample

    def _pipeprof_next_plain(self, recorder: BatchRecorder) -> Any:
        """Take a sample as under a span, without its object: there are as many as samples."""
        outer, before_ns = recorder.current, recorder.inner_ns
        recorder.current = _GETTING
        began_ns = monotonic_ns()
        try:
            return next(self._pipeprof_real)
        finally:
            inner_ns = before_ns + monotonic_ns() - began_ns
            recorder.current = outer
            recorder.add(GETITEM, inner_ns - recorder.inner_ns)
            recorder.inner_ns = inner_ns

    def _pipeprof_begun(self) -> BatchRecorder:
        """Return the recorder, with a batch begun that knows its key."""
        probe = self._pipeprof_probe
        recorder = _recorder(probe)
        key, _asked.key = _asked.key, None
        if key is not None:
            recorder.begin(*key)
        elif not recorder.open:
            # Without batching torch sends no indices: the key is made here, unique by worker.
            seq = probe.made * max(1, probe.mode.workers) + max(0, probe.worker)
            probe.made += 1
            recorder.begin(probe.epoch, seq, MISSING)
        return recorder


class StatefulSampleIterator(_State, SampleIterator):
    """Variant that implements torchdata's Stateful protocol."""

    def state_dict(self) -> Any:
        """Return the state of the wrapped object."""
        return self._pipeprof_state_with_batch(self._pipeprof_probe)


class IterableProxy(SampleIterator):
    """An iterable data set. One that is its own iterator stays so, as StatefulDataLoader looks for that."""

    def __iter__(self) -> Iterator[Any]:
        probe, real = self._pipeprof_probe, self._pipeprof_real
        probe.epoch, probe.made, probe.items_noted = probe.epoch + 1, 0, 0
        if probe.recorder is not None:
            probe.recorder.abandon()  # the last epoch ended with a batch that was dropped
        iterator = iter(real)
        if iterator is real:
            return self
        return (StatefulSampleIterator if is_stateful(iterator) else SampleIterator)(iterator, probe)


class StatefulIterableProxy(_State, IterableProxy):
    """Variant that implements torchdata's Stateful protocol."""

    def state_dict(self) -> Any:
        """Return the state of the wrapped object."""
        return self._pipeprof_state_with_batch(self._pipeprof_probe)


# -- the other parts -------------------------------------------------------------------------------------


class Collate(Proxy):
    """A collate function, and the end of a batch."""

    def __call__(self, samples: Any) -> Any:
        """Collate the samples, and end the record of the batch."""
        probe = self._pipeprof_probe
        recorder = probe.recorder
        if recorder is None or not recorder.open:
            return self._pipeprof_real(samples)
        if probe.mode.iterable:
            recorder.samples = 1 if probe.mode.unbatched else len(samples)
        if recorder.unprobed:
            return self._pipeprof_unprobed(probe, recorder, samples)
        before_ns = recorder.inner_ns
        began_ns = monotonic_ns()
        try:
            if recorder.plain:  # a span without its object
                recorder.current = _COLLATING
                batch = self._pipeprof_real(samples)
            else:
                with span(COLLATE):
                    batch = self._pipeprof_real(samples)
        except BaseException as error:
            if recorder.plain:
                recorder.collate_ns = monotonic_ns() - began_ns - recorder.inner_ns + before_ns
            recorder.fail(error, COLLATE)
            raise
        finish_ns = monotonic_ns()
        if recorder.plain:
            recorder.collate_ns = finish_ns - began_ns - recorder.inner_ns + before_ns
        try:
            size = size_bytes(batch)
        except Exception:  # a sparse tensor has no size, a list may hold itself: no business of the user's
            size = MISSING
        recorder.finish(size, finish_ns)
        if probe.modules != len(sys.modules):
            probe.look_for_stages()
        if probe.worker == MAIN_PROCESS:
            return batch
        if probe.counts is not None:
            probe.counts.batch_ended(finish_ns)
        return _handed_over(probe, recorder, batch, self._pipeprof_real)

    def _pipeprof_unprobed(self, probe: Probe, recorder: BatchRecorder, samples: Any) -> Any:
        """Collate, and write down when that was done."""
        try:
            batch = self._pipeprof_real(samples)
        except BaseException as error:
            recorder.fail(error, COLLATE)
            raise
        finish_ns = monotonic_ns()
        recorder.finish_unprobed(recorder.samples, finish_ns)
        if probe.worker != MAIN_PROCESS:
            batch = _handed_over(probe, recorder, batch, self._pipeprof_real)
        recorder.after_unprobed_ns = monotonic_ns() - finish_ns
        return batch


def _handed_over(probe: Probe, recorder: BatchRecorder, batch: Any, collate: Any) -> handover.Handed:
    """Return what stands for the batch on its way to the main process."""
    if probe.mode.piggyback:
        batch = (PIGGYBACK, *recorder.key, batch)
    return handover.Handed(probe.number, recorder.key, batch, recorder.asked, collate)


class WorkerInit(Proxy):
    """The first of ours to run in a worker."""

    def __call__(self, worker: int) -> None:
        """Begin to record; then the user's own function."""
        probe = self._pipeprof_probe
        process_ns = monotonic_ns() - probe.created_ns
        tally.add(counters.STARTUP_PROCESS_NS, process_ns)
        tally.add(counters.STARTUP_IMPORTS_NS, min(process_ns, process_age_ns()))
        probe.start(worker)
        with suppress(Exception):  # private names: without them one time is not observed
            assert probe.recorder is not None
            handover.watch_sending(probe.recorder.lose)
        with suppress(Exception):
            hide_in_worker("worker")
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, Proxy):
            # WorkerInfo is frozen; the user's code must meet the user's data set.
            object.__setattr__(info, "dataset", info.dataset._pipeprof_real)
        if self._pipeprof_real is not None:
            before_ns = monotonic_ns()
            self._pipeprof_real(worker)
            tally.add(counters.STARTUP_INIT_FN_NS, monotonic_ns() - before_ns)


class SamplerProxy(Proxy):
    """A sampler or batch sampler in the main process: each payload leaves with its key."""

    def __init__(self, real: Any, probe: Probe, begin_epoch: BeginEpoch) -> None:
        super().__init__(real, probe)
        self._pipeprof_begin_epoch = begin_epoch

    def __iter__(self) -> Iterator[Any]:
        counter = counters.part_of(counters.SAMPLER_NS, _sampler_name(self._pipeprof_real))
        before_ns = monotonic_ns()
        payloads = iter(self._pipeprof_real)
        tally.add(counter, monotonic_ns() - before_ns)
        kind = StatefulPayloads if is_stateful(payloads) else Payloads
        return kind(payloads, self._pipeprof_probe, self._pipeprof_begin_epoch, counter)


def _sampler_name(sampler: Any) -> str:
    """Return the class that draws the indices: of the sampler inside torch's own BatchSampler."""
    inner = getattr(sampler, "sampler", None) if type(sampler) is BatchSampler else None
    return type(sampler if inner is None else inner).__name__[:40]


class StatefulSamplerProxy(_State, SamplerProxy):
    """Variant that implements torchdata's Stateful protocol."""


class Payloads(Proxy):
    """The iterator of a sampler. torch makes some that it never uses: an epoch begins with the first item."""

    def __init__(
        self, real: Any, probe: Probe, begin_epoch: BeginEpoch, counter: counters.CounterName
    ) -> None:
        super().__init__(real, probe)
        self._pipeprof_begin_epoch = begin_epoch
        self._pipeprof_mode = probe.mode
        self._pipeprof_asked_ns = monotonic_ns()
        self._pipeprof_epoch = self._pipeprof_seq = -1
        self._pipeprof_counter = counter

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._pipeprof_epoch < 0:
            self._pipeprof_epoch = self._pipeprof_begin_epoch(self._pipeprof_asked_ns)
            self._pipeprof_probe.epoch = self._pipeprof_epoch  # of keys that are made in this process
        before_ns = monotonic_ns()
        payload = next(self._pipeprof_real)
        drawn_ns = monotonic_ns()
        tally.add(self._pipeprof_counter, drawn_ns - before_ns)
        self._pipeprof_seq += 1
        mode = self._pipeprof_mode
        if not mode.iterable:
            return self._pipeprof_epoch, self._pipeprof_seq, drawn_ns, payload
        if mode.unbatched:
            return payload
        return AskedBatch(Key(self._pipeprof_epoch, self._pipeprof_seq, drawn_ns), payload)


class StatefulPayloads(_State, Payloads):
    """Variant that implements torchdata's Stateful protocol."""


def proxy_dataset(real: Any, probe: Probe) -> Any:
    """Return the proxy for a data set of either style."""
    if not probe.mode.iterable:
        return (StatefulMapDataset if is_stateful(real) else MapDataset)(real, probe)
    return (StatefulIterableProxy if is_stateful(real) else IterableProxy)(real, probe)


def proxy_sampler(real: Any, probe: Probe, begin_epoch: BeginEpoch) -> Any:
    """Return the proxy for a sampler or batch sampler."""
    kind = StatefulSamplerProxy if is_stateful(real) else SamplerProxy
    return kind(real, probe, begin_epoch)
