"""Proxies for a fetcher of torch's that is already running, put in and taken out between two of its batches.

Nothing that travels is changed: the loop sends the same indices, and a worker knows the number of its batch
from torch's own loop. So a worker without the proxies, before or after, works as ever. The proxies take
themselves out at the first batch after the observation has ended.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from types import FrameType
from typing import Any, Final

from pipeprof.measure.probe import auto_stages
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import gc_watch
from pipeprof.measure.probe.own_frames import hide_in_worker
from pipeprof.measure.probe.patches import patch, release
from pipeprof.measure.probe.proxies import (
    Collate,
    Fetch,
    MapDataset,
    Mode,
    Probe,
    Proxy,
    SampleIterator,
    StatefulSampleIterator,
    count,
    is_stateful,
    many_samples,
)
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.record.schema import MAIN_PROCESS, MISSING

PRIVATE_OF_FETCHERS: Final = ("dataset", "collate_fn", "dataset_iter")
"""torch's names for the parts of a fetcher. One that lacks them is not observed."""
PRIVATE_OF_WORKER_LOOP: Final = ("_worker_loop", "idx", "fetcher")
"""torch's name for the loop of a worker, and for its locals: the number of the batch, and the fetcher."""
_HOLDER: Final = "attached"


def loop_frame() -> FrameType | None:
    """Return the frame of torch's loop in this worker; None in another process."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != PRIVATE_OF_WORKER_LOOP[0]:
        frame = frame.f_back
    return frame


class AttachedProbe(Probe):
    """State of the proxies of one iterator that was running when pipeprof came, or that was made while it is
    attached."""

    def __init__(
        self, number: int, block: SharedBlock, records: int, mode: Mode, aides: SharedBlock | None
    ) -> None:
        super().__init__(number, block, records, False, mode, 0, aides)
        self.key_here = (0, 0)
        """Epoch and seq of the batch that is made next, in the process of the loop."""
        self.under_way = MISSING
        """Number of the batch that was being made when the proxies came: it is not observed."""
        self._dressed: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_dressed": []}

    @property
    def is_over(self) -> bool:
        """Return whether the observation has ended."""
        return self.slot is None or self.slot.unread

    @property
    def is_left(self) -> bool:
        """Return whether the loop was left: batches of a later epoch would get the numbers of its last."""
        return self.slot is not None and self.slot.last_asked

    def key(self) -> tuple[int, int] | None:
        """Return epoch and seq of the batch that is being made; None for one that is not observed."""
        if self.worker == MAIN_PROCESS:
            return self.key_here
        frame = loop_frame()
        if frame is None or self.slot is None:
            return None
        seq = frame.f_locals.get(PRIVATE_OF_WORKER_LOOP[1])
        if not isinstance(seq, int):
            return None
        under_way, self.under_way = self.under_way, MISSING
        return None if seq == under_way else (self.slot.asked_epoch, seq)

    def dress(self, fetcher: Any) -> None:
        """Put the proxies into a fetcher."""
        if self.mode.iterable:
            kind = AttachedStatefulStream if is_stateful(fetcher.dataset_iter) else AttachedStream
            fetcher.dataset_iter = kind(fetcher.dataset_iter, self)
        else:
            fetcher.dataset = AttachedMapDataset(fetcher.dataset, self)
        fetcher.collate_fn = Collate(fetcher.collate_fn, self)
        self._dressed.append(weakref.ref(fetcher))

    def undress(self) -> None:
        """Take the proxies out of all fetchers."""
        for reference in self._dressed:
            fetcher = reference()
            for name in PRIVATE_OF_FETCHERS if fetcher is not None else ():
                part = getattr(fetcher, name, None)
                if isinstance(part, Proxy) and part._pipeprof_probe is self:
                    setattr(fetcher, name, part._pipeprof_real)
        self._dressed.clear()

    def stay(self) -> None:
        """Observe this worker's later epochs too, and keep our frames out of the errors that it sends.

        Its loop makes a fetcher at the start of each epoch, into which the proxies go.
        """
        from torch.utils.data import _DatasetKind

        def wrap(original: Callable[..., Any]) -> Any:
            def create_fetcher(*arguments: Any, **options: Any) -> Any:
                fetcher = original(*arguments, **options)
                if not self.is_over:
                    self.dress(fetcher)
                return fetcher

            return staticmethod(create_fetcher)

        patch(_HOLDER, _DatasetKind, "create_fetcher", wrap)
        with suppress(Exception):  # a private name
            hide_in_worker(_HOLDER)

    def leave_worker(self) -> None:
        """Remove everything of ours from this worker: called by the thread that makes its batches."""
        self.undress()
        release(_HOLDER)
        if self.recorder is not None:
            self.recorder.abandon()
        self.stop()
        auto_stages.uninstall()
        gc_watch.WATCH.stop()


def _unobserved(real: Any, asked: Any, whole_batch: bool) -> Any:
    """Fetch as torch does."""
    if not whole_batch:
        return real[asked]
    many = getattr(real, "__getitems__", None)
    return many(asked) if many else [real[index] for index in asked]


class AttachedMapDataset(MapDataset):
    """A map-style data set whose indices come as torch sends them."""

    def __getitem__(self, asked: Any) -> Any:
        if not self._pipeprof_probe.mode.unbatched:  # a batch that was begun without us, sample by sample
            return self._pipeprof_real[asked]
        return super().__getitem__(asked)

    def _pipeprof_fetch(self, asked: Any, fetch: Fetch) -> Any:
        probe, real = self._pipeprof_probe, self._pipeprof_real
        recorder = _begun(probe)
        if recorder is None:
            return _unobserved(real, asked, fetch is many_samples)
        recorder.asked = asked
        try:
            samples = fetch(real, recorder, asked)
        except BaseException as error:
            recorder.fail(error)
            raise
        recorder.fetched(len(asked) if isinstance(asked, (list, tuple)) else count(asked, samples, fetch))
        return samples


def _begun(probe: Probe) -> BatchRecorder | None:
    """Begin the record of a batch; None for one that is not observed."""
    assert isinstance(probe, AttachedProbe)
    if probe.is_over:
        if probe.worker != MAIN_PROCESS:
            probe.leave_worker()
        return None
    if probe.is_left:
        if probe.counts is not None:
            probe.counts.batch_ended(monotonic_ns())
        return None
    key = probe.key()
    if key is None or probe.recorder is None:
        return None
    probe.recorder.begin(*key, MISSING)
    return probe.recorder


class AttachedStream(SampleIterator):
    """The iterator of an iterable data set, met between any two of its samples."""

    def __next__(self) -> Any:
        probe = self._pipeprof_probe
        recorder = probe.recorder
        if recorder is None or (not recorder.open and _begun(probe) is None):
            return next(self._pipeprof_real)
        return super().__next__()


class AttachedStatefulStream(AttachedStream, StatefulSampleIterator):
    """Variant that implements torchdata's Stateful protocol."""


class EnterWorker:
    """A `worker_init_fn` that begins to observe a worker which is started while pipeprof is attached."""

    def __init__(self, real: Callable[[int], None] | None, probe: AttachedProbe) -> None:
        self._real, self._probe = real, probe

    def __call__(self, worker: int) -> None:
        """Begin to observe; then the user's own function."""
        self._probe.start(worker)
        self._probe.stay()
        if self._real is not None:
            self._real(worker)
