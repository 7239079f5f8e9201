"""What a torch iterator is given in place of the loader's own parts: the same behaviour, with a clock.

The proxies stand for the public `dataset`, `collate_fn`, `worker_init_fn` and sampler of a loader. A torch
iterator captures them when it is made, and users never see them. The sampler's proxy sends each batch's key
along with its indices, so that the records of a worker know their batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any, Final

from torch.utils.data import get_worker_info

from pipeprof.measure.batch import size_bytes
from pipeprof.measure.counters import UNSEEN
from pipeprof.measure.recorder import COLLATE, GETITEM, Recorder, Span
from pipeprof.measure.ring import Slot
from pipeprof.measure.shared import SharedBlock
from pipeprof.trace import MAIN_PROCESS

PIGGYBACK: Final = "pipeprof:batch"
"""Marks a batch that carries its key: (PIGGYBACK, worker, epoch, seq, the batch)."""

Key = tuple[int, int, int]
"""epoch, seq, dispatch_ns"""


class _Asked(threading.local):
    key: Key | None = None


_asked = _Asked()


class Probe:
    """What the proxies of one iterator share, in the main process and in each worker."""

    def __init__(
        self, block: SharedBlock, records: int, every_sample: bool, unbatched: bool, piggyback: bool
    ) -> None:
        self.block, self.records = block, records
        self.every_sample, self.unbatched, self.piggyback = every_sample, unbatched, piggyback
        self.recorder: Recorder | None = None
        self.worker = MAIN_PROCESS
        self.epochs = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recorder": None}

    def start(self, worker: int, pid: int) -> Recorder:
        """Begin to record in this process, as `worker`; the main process writes the first slot."""
        self.worker = worker
        slot = Slot(self.block, max(worker, 0), self.records, pid)
        slot.ready(monotonic_ns())
        self.recorder = Recorder(slot, self.every_sample)
        return self.recorder


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


class MapDataset(_Proxy):
    """A map-style dataset. It always offers `__getitems__`: one hop a batch."""

    def __getitem__(self, tagged: Any) -> Any:
        epoch, seq, dispatch_ns, index = tagged
        recorder = self._pipeprof_probe.recorder
        if recorder is None:
            return self._pipeprof_real[index]
        recorder.begin(epoch, seq, dispatch_ns)
        try:
            sample = self._pipeprof_real[index]
        except BaseException:
            recorder.finish(0, None)
            raise
        _samples_done(recorder, 1)
        return sample

    def __getitems__(self, tagged: Any) -> Any:
        epoch, seq, dispatch_ns, indices = tagged
        recorder, real = self._pipeprof_probe.recorder, self._pipeprof_real
        if recorder is None:
            return _fetch(real, indices)
        recorder.begin(epoch, seq, dispatch_ns)
        try:
            many = getattr(real, "__getitems__", None)
            samples = many(indices) if many else _each(real, indices, recorder)
        except BaseException:
            recorder.finish(0, None)
            raise
        _samples_done(recorder, len(indices))
        return samples


def _fetch(real: Any, indices: Any) -> Any:
    many = getattr(real, "__getitems__", None)
    return many(indices) if many else [real[i] for i in indices]


def _each(real: Any, indices: Any, recorder: Recorder) -> list[Any]:
    """The samples one by one, with an eye on the slowest. One clock reading a sample."""
    samples, slowest, slowest_index = [], UNSEEN, UNSEEN
    before = monotonic_ns()
    for index in indices:
        samples.append(real[index])
        now = monotonic_ns()
        if now - before > slowest:
            slowest, slowest_index = now - before, index
        before = now
    recorder.slowest_ns = slowest
    recorder.slowest_index = slowest_index if isinstance(slowest_index, int) else UNSEEN
    return samples


def _samples_done(recorder: Recorder, samples: int) -> None:
    """All time since the batch's start that is in no known stage was spent in `__getitem__`."""
    now = monotonic_ns()
    recorder.add_total(GETITEM, max(0, now - recorder.start_ns - recorder.inner_ns), samples)
    recorder.inner_ns = 0


class Collate(_Proxy):
    """A collate function, and the end of a batch."""

    def __call__(self, samples: Any) -> Any:
        probe = self._pipeprof_probe
        recorder = probe.recorder
        if recorder is None or not recorder.open:
            return self._pipeprof_real(samples)
        count = 1 if probe.unbatched else len(samples)
        try:
            with Span(recorder, COLLATE):
                batch = self._pipeprof_real(samples)
        except BaseException:
            recorder.finish(0, None)
            raise
        epoch, seq = recorder.key
        recorder.finish(count, monotonic_ns(), size_bytes(batch))
        return (PIGGYBACK, probe.worker, epoch, seq, batch) if probe.piggyback else batch


class WorkerInit(_Proxy):
    """The first of ours to run in a worker."""

    def __call__(self, worker: int) -> None:
        probe = self._pipeprof_probe
        import os

        probe.start(worker, os.getpid())
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _Proxy):
            # WorkerInfo is frozen; the user's init function must meet the user's dataset.
            object.__setattr__(info, "dataset", info.dataset._pipeprof_real)
        if self._pipeprof_real is not None:
            self._pipeprof_real(worker)


class Sampler(_Proxy):
    """A sampler or batch sampler in the main process: each payload leaves with its key."""

    def __init__(self, real: Any, probe: Probe, on_epoch: Callable[[], int]) -> None:
        super().__init__(real, probe)
        self._pipeprof_on_epoch = on_epoch

    def __iter__(self) -> Iterator[Any]:
        payloads = iter(self._pipeprof_real)
        return self._pipeprof_tagged(payloads)

    def _pipeprof_tagged(self, payloads: Iterator[Any]) -> Iterator[Any]:
        epoch = self._pipeprof_on_epoch()
        for seq, payload in enumerate(payloads):
            yield (epoch, seq, monotonic_ns(), payload)
