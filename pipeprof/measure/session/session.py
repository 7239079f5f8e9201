"""Observed run in this process: owns the run directory, and the loaders that are watched."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from torch.utils.data import DataLoader

from pipeprof.environment import EVERY_BATCH
from pipeprof.errors import MeasureError, TraceError
from pipeprof.measure.probe import auto_stages
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.counting import gc_watch, tally
from pipeprof.measure.probe.counting.files_read import FilesRead
from pipeprof.measure.session import forks
from pipeprof.measure.session.flush import Flusher
from pipeprof.measure.session.hang import HangWatch
from pipeprof.measure.session.job import here, local_out, open_writer, own_directory, with_rank
from pipeprof.measure.session.loader_watch import IteratorWatch, LoaderWatch
from pipeprof.measure.session.pending import Pending
from pipeprof.measure.session.run_meta import begun, described, ended, status_of
from pipeprof.measure.session.scratch import remove_scratch
from pipeprof.measure.session.steps.kernels import LEAD, KernelTrace
from pipeprof.measure.session.steps.parts import StepParts
from pipeprof.measure.session.steps.steps import Steps
from pipeprof.measure.session.upload.uploader import begin_upload
from pipeprof.record.meta import LoaderMeta, OperatorMeta, RunMeta, StorageMeta
from pipeprof.record.schema import Status
from pipeprof.units import NS_PER_S

Watch = TypeVar("Watch", bound=LoaderWatch)
RING_RECORDS: Final = 16_384
"""2 MiB a worker. The flush thread looks 7 times a second if few records come, else 20 times: room for
100,000 records a second that begin at once."""

PATIENCE_S: Final = 5.0
"""Longest time that a signal waits for the run to be completed."""


class Session:
    """An observed run. Use it as a context manager, or call `close`.

    `out` is the run directory, a URL that fsspec writes, or None for a temporary directory that goes with the
    process. `meta` is merged into `run.json`. The first `warmup_steps` steps are marked as such. `detail` is
    "batch", or "sample" to keep every span. `device` says that `step_launched` and `device_times` will be
    called for each step: a step is then written when its times are known, or at the end; without it, when its
    batch was taken. A session that is `held_by_loaders` ends with the last of them and of their iterators.
    With `lines` the stacks of the workers and of the loop's thread are sampled. `placed` says that `out` is
    this rank's own part of a job. With `files` some of the files that batches are made from are kept, for a
    probe of their storage. `parts_of` is the model whose forward and backward, and the optimisers' steps, are
    marked on the device; the kernels of `kernels` steps are traced by torch.profiler, and those steps and all
    before count as warm-up. With `every_batch` all batches of a long run are probed, whatever that costs.

    Raises `TraceError` if the directory cannot be written, `MeasureError` for an unknown `detail`. A run that
    can no longer be written, on a full disk for one, stops being recorded; `failure` says why.
    """

    def __init__(
        self,
        out: Path | str | None = None,
        kind: str = "wrapper",
        name: str = "",
        meta: RunMeta | None = None,
        *,
        warmup_steps: int = 0,
        detail: str = "batch",
        device: bool = False,
        held_by_loaders: bool = False,
        lines: bool = False,
        files: bool = False,
        placed: bool = False,
        parts_of: Any = None,
        kernels: int = 0,
        every_batch: bool = False,
    ) -> None:
        if detail not in ("batch", "sample"):
            raise MeasureError(f"detail is {detail!r}", 'choose "batch" or "sample"')
        self.kind, self.lines = kind, lines
        self.every_sample = detail == "sample"
        self.every_batch = every_batch or os.environ.get(EVERY_BATCH) == "1"
        self.ring_records = RING_RECORDS * 4 if self.every_sample else RING_RECORDS
        self.held_by_loaders = held_by_loaders
        pending = Pending()
        parts = None if parts_of is None else StepParts(parts_of, pending.parts)
        if kernels:  # what is traced is slower, and does not count
            warmup_steps = max(warmup_steps, LEAD) + kernels
        facts = begun(meta or RunMeta(), kind, name, warmup_steps)
        writer, self._scratch, self.unwritten = open_writer(local_out(out), facts, placed)
        self.directory = writer.directory
        is_rank = facts.rank is not None
        self._uploader = begin_upload(self.directory, is_rank) if self._scratch is None else None
        self.steps = Steps(pending.event, warmup_steps, device_times_follow=device, lines=lines)
        self.steps.parts = parts
        self.telemetry, self.event, self.collective = pending.telemetry, pending.event, pending.collective
        self.parts = pending.parts
        self._flusher = Flusher(writer, self.steps, pending, self._flusher_stopped)
        self._flusher.files = FilesRead() if files else None
        # for any thread: hand to the kernel what is known so far; change `run.json`
        self.flush, self.amend = self._flusher.flush, self._flusher.amend
        self.note_warning = self._flusher.note_warning
        if kernels:
            first = warmup_steps - kernels
            self.steps.kernels = KernelTrace(
                first,
                kernels,
                partial(pending.traced, first),
                lambda why: self.add_unseen(f"kernels: {why}"),
            )
        self._watches: list[LoaderWatch] = []
        self._holders = 0
        self.before_end: list[Callable[[], None]] = []
        """Called when the run ends, unless its finalizers end it, for what remains to be queried then."""
        self._signal: str | None = None
        self._ending: tuple[Status, str | None, StorageMeta | None] | None = None
        if forks.guard(self) == 1:
            tally.clear()
            gc_watch.WATCH.start()
        hook.observe_all(self._rebuilt)
        self._flusher.start()
        atexit.register(self._at_exit)

    @property
    def active(self) -> bool:
        """Return True while the run goes on."""
        return self._flusher.active

    @property
    def failure(self) -> TraceError | None:
        """Return the reason why the run can no longer be written; None while it can."""
        return self._flusher.failure

    @property
    def lock(self) -> threading.Lock:
        """Return the lock that is held while the run is being written."""
        return self._flusher.lock

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close(status_of(error), error=error)

    def take_place(self) -> None:
        """Move the run to this process's part of its job, if it has become a rank since the run began.

        It stays where it is if that cannot be done.
        """
        if self._flusher.meta.rank is not None or self._scratch is not None or here() is None:
            return
        try:
            self.directory = self._flusher.move(own_directory(self.directory, beside_run=True), with_rank)
            if self._uploader is not None:
                self._uploader.follow(self.directory)
        except TraceError as error:
            self._flusher.warn(f"this rank of a job is recorded as a run of one process: {error}")

    # -- loaders -------------------------------------------------------------------------------------------

    def loader(self, dataset: Any, *, name: str = "", **arguments: Any) -> DataLoader[Any]:
        """Make a torch DataLoader over `dataset`, watched. `arguments` are DataLoader's own."""
        return self.observe(DataLoader(dataset, **arguments), name)

    def observe(self, loader: DataLoader[Any], name: str = "") -> DataLoader[Any]:
        """Watch a loader that exists, from its next iterator on; returns it."""
        watch = self.watch_of(loader, name)
        kept = hook.kept_iterators(loader)
        if not hook.observe(loader, watch):
            self._flusher.warn(f"this torch has no DataLoader._get_iterator: {watch.name} is not observed")
        elif kept:
            why = "its workers had been started before"
            self._flusher.warn(f"of {watch.name} the waits alone are observed: {why}")
        elif hook.keeps_iterator(loader):
            self._flusher.warn(f"{watch.name} is not observed: its iterator is observed already")
        for iterator in kept:
            watch.adopt(loader, iterator)
        return loader

    def watch_of(self, loader: DataLoader[Any], name: str = "") -> LoaderWatch:
        """Make an observer for `loader`, entered in `run.json`."""
        return self.watch_with(LoaderWatch, loader, name)

    def watch_with(self, kind: Callable[..., Watch], loader: Any, name: str = "") -> Watch:
        """Make an observer of another kind, entered in `run.json`."""
        number = len(self._flusher.meta.loaders)
        watch = kind(self, loader, number, name or f"loader{number}")
        self._watches.append(watch)
        self.enter(watch.facts)
        return watch

    def _rebuilt(self, loader: DataLoader[Any]) -> LoaderWatch | None:
        """Make an observer for a loader that was made from one of ours, as Accelerate's `prepare` does."""
        ours = next((watch for watch in self._watches if watch.was_rebuilt_as(loader)), None)
        if ours is None or not self.active:
            return None
        ours.iterated = True
        self.hold()
        weakref.finalize(loader, self.release).atexit = False
        return self.watch_of(loader, ours.name)

    def enter(self, loader: LoaderMeta) -> int:
        """Enter an iterated object into `run.json`; return its number there."""
        number = len(self._flusher.meta.loaders)
        numbered = replace(loader, id=number)
        self.amend(lambda meta: replace(meta, loaders=(*meta.loaders, numbered)))
        return number

    def add_operators(self, loader: int, operators: tuple[OperatorMeta, ...]) -> None:
        """Record in `run.json` a source's own statistics of the operators that made a loader's batches."""

        def entered(meta: RunMeta) -> RunMeta:
            mine = replace(meta.loader(loader), operators=operators)
            return replace(meta, loaders=tuple(mine if each.id == loader else each for each in meta.loaders))

        self.amend(entered)

    def add_unseen(self, what: str) -> None:
        """Enter into `run.json` something that is not observed."""
        if what not in self._flusher.meta.not_observed:
            self.amend(lambda meta: replace(meta, not_observed=(*meta.not_observed, what)))

    def watch_hangs(self, after_s: float, say: Callable[[str], None] | None = None) -> None:
        """Report each wait for a batch longer than `after_s` on standard error, or to `say`."""
        self._flusher.hangs = HangWatch(after_s, self.directory, self.event, say)

    def add_source(self, source: IteratorWatch) -> None:
        """Drain the rings of `source` from now on, until it is gone."""
        self._flusher.sources.append(source)

    # -- beside the loop -----------------------------------------------------------------------------------

    def summary(self) -> dict[str, float]:
        """Return a flat dictionary of the run so far, for any logger.

        steps, samples, samples_per_s, wait_s, wait_share (of the time from the first request to the last
        take), and `stage/<name>_share` of the time that went into making batches.
        """
        self.flush()
        steps, stages_ns = self.steps, self._flusher.stage_wall_ns
        wall_ns, making_ns = steps.wall_ns, sum(stages_ns.values())
        return {
            "steps": steps.taken,
            "samples": steps.samples,
            "samples_per_s": steps.samples / wall_ns * NS_PER_S if wall_ns else 0.0,
            "wait_s": steps.wait_ns / NS_PER_S,
            "wait_share": steps.wait_ns / wall_ns if wall_ns else 0.0,
            **{f"stage/{name}_share": ns / making_ns for name, ns in stages_ns.items() if making_ns},
        }

    # -- the end -------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep the run going for one more loader, or iterator of one."""
        self._holders += 1

    def release(self) -> None:
        """Let the run end when all others are gone too.

        It is called in finalizers, at any point: the flush thread ends the run.
        """
        self._holders -= 1
        if self._holders == 0 and self.held_by_loaders and self.active:
            self._flusher.stop()

    def _flusher_stopped(self) -> None:
        """End the run in the flush thread, whose last call this is."""
        if self._ending is not None:
            self._end(*self._ending)
        elif self.held_by_loaders and self._holders == 0:
            self.close()
            self.discard()

    def close(
        self,
        status: Status = "complete",
        error: BaseException | None = None,
        storage: StorageMeta | None = None,
    ) -> None:
        """End the run. `storage` says what its storage has served. Later calls do nothing.

        Raises nothing for a full disk: see `failure`. Anything that a signal handler raises here, as torch's
        does for a lost worker, is raised after the flush thread has ended the run.
        """
        if not self.active:
            return
        raised = None
        for ask in self.before_end:
            ask()
        if not self._flusher.is_current_thread():
            self.steps.sink.end()
            self.steps.stop_sampling()
            self._ending = (status, described(error), storage)
            self._flusher.stop()
            raised = self._flusher.join()
        self._end(status, described(error), storage)
        if raised is not None and not (error and isinstance(raised, RuntimeError)):
            raise raised

    def wait_until_sent(self) -> None:
        """Wait until the record is at its URL, if it goes to one; what could not be sent is reported."""
        if self._uploader is not None:
            self._uploader.end()

    def end_by(self, signal: str) -> None:
        """End the run from the handler of a signal, which may have come at any point.

        The flush thread ends it; if that cannot, because the main thread holds what it needs, the run stays
        as it was last flushed.
        """
        if self.active:
            self._signal, self._ending = signal, ("interrupted", None, None)
            self.steps.sink.end()
            self.steps.stop_sampling()
            self._flusher.stop()
            self._flusher.join(PATIENCE_S)

    def _end(self, status: Status, error: str | None, storage: StorageMeta | None) -> None:
        if not self._flusher.finish(status, lambda meta: self._final_meta(meta, error, storage)):
            return
        for observer in self._watches:
            hook.forget(observer)
        self._watches.clear()  # each would keep the other
        hook.observe_no_more(self._rebuilt)
        if forks.unguard(self) == 0:
            auto_stages.uninstall()
            gc_watch.WATCH.stop()
        if self._scratch is None:
            atexit.unregister(self._at_exit)

    def _final_meta(self, meta: RunMeta, error: str | None, storage: StorageMeta | None) -> RunMeta:
        meta = replace(meta, signal=self._signal or meta.signal)
        meta = ended(meta, error, [watch.name for watch in self._watches if not watch.iterated])
        if self._flusher.files is not None:
            meta = replace(meta, reading=self._flusher.files.entered(meta.reading))
        if self.steps.device_wait is not None:
            meta = self.steps.device_wait.entered(meta)
        if self.steps.parts is not None and self.steps.parts.why_not is not None:
            why = f"parts of steps: {self.steps.parts.why_not}"
            meta = replace(meta, not_observed=(*meta.not_observed, why))
        if self.steps.taken:
            taken, flusher = self.steps.taken, self._flusher
            lines_ns = flusher.lines_cpu_ns / taken if self.lines else None
            cost = replace(meta.overhead, flush_ns=flusher.cpu_ns / taken, lines_ns=lines_ns)
            meta = replace(meta, overhead=cost)
        return meta if storage is None else replace(meta, storage=storage)

    def _at_exit(self) -> None:
        """Close the run: the program ends and has not."""
        self.close(status_of(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)))
        self.discard()

    def discard(self) -> None:
        """Remove the temporary run directory, if there is one."""
        if self._scratch is not None:
            remove_scratch(self._scratch)
        self._scratch = None
        atexit.unregister(self._at_exit)

    def forked(self) -> None:
        """Forget the run in a forked child: nothing flushes, closes or removes any of the parent's here."""
        self._scratch = None
        self._flusher.forked()
