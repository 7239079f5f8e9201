"""One observed run in this process: owns the run directory, the flush thread and the watched loaders.

The loop's thread appends to lists; the flush thread turns those and the workers' rings into rows of the
trace, in bulk, at least once a second. Only one thread at a time touches the writer.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

import torch
from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError, TraceError
from pipeprof.measure import forks, hook, ranks, stages
from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.calibrate import own_cost
from pipeprof.measure.loop import DeviceWait, LoopSink
from pipeprof.measure.notes import Notes
from pipeprof.measure.rows import Gatherer, StepRow, loop_stages
from pipeprof.measure.scratch import remove_scratch
from pipeprof.measure.session_facts import at_the_end, session_facts, status_of, with_dropped
from pipeprof.measure.steal import Steal
from pipeprof.measure.stop import joined
from pipeprof.measure.watch import IteratorWatch, LoaderWatch
from pipeprof.measure.worker_state import WorkerStates

FLUSH_EVERY_S: Final = 0.8
LOOK_EVERY_S: Final = 0.05
FULL_ENOUGH: Final = 0.25
"""A ring this full is drained at once."""
RING_RECORDS: Final = 16_384
"""2 MiB a worker. The flush thread looks 20 times a second: room for 240,000 records a second."""


class Session:
    """An observed run. Use it as a context manager, or call `close`.

    `out` is the run directory, or None for a temporary one that goes with the process. `meta` is merged into
    `run.json`. The first `warmup_steps` steps are marked as such. `detail` is "batch", or "sample" to keep
    every span. `device` says that `step_launched` and `device_times` will be told of each step: a step is
    then written when its times are known, or at the end; without it, when its batch was taken. A session that
    is `held_by_loaders` ends with the last of them and of their iterators.

    Raises `TraceError` where the directory cannot be written, `MeasureError` for an unknown `detail`. A run
    that cannot be written any more, on a full disk for one, stops being recorded; `failure` says why.
    """

    def __init__(
        self,
        out: Path | str | None = None,
        kind: str = "wrapper",
        name: str = "",
        meta: Mapping[str, Any] | None = None,
        *,
        warmup_steps: int = 0,
        detail: str = "batch",
        device: bool = False,
        held_by_loaders: bool = False,
    ) -> None:
        if detail not in ("batch", "sample"):
            raise MeasureError(f"detail is {detail!r}", 'choose "batch" or "sample"')
        self.kind, self.device = kind, device
        self.warmup_steps = warmup_steps
        self.every_sample = detail == "sample"
        self.ring_records = RING_RECORDS * 4 if self.every_sample else RING_RECORDS
        self.held_by_loaders = held_by_loaders
        self.active = True
        self.steps_taken = self.wait_ns = 0
        self.ready_batches: int | None = None
        self.failure: TraceError | None = None
        facts = {**session_facts(kind, name), "overhead": own_cost(), "warmup_steps": warmup_steps}
        told = meta or {}
        facts |= {**told, "not_observed": [*told.get("not_observed", ()), *facts["not_observed"]]}
        self.writer, self._scratch, self.unwritten = ranks.open_writer(out, facts)
        self.directory = self.writer.directory
        self._start()

    def _start(self) -> None:
        self._loaders: list[dict[str, Any]] = []
        self._watches: list[LoaderWatch] = []
        self._gatherer = Gatherer()
        self._states = WorkerStates()
        self._steal = Steal()
        self._loop = LoopSink()
        self._device_wait: DeviceWait | None = None
        self._steps: dict[int, StepRow] = {}
        self._notes = Notes()
        self.telemetry, self.event = self._notes.telemetry, self._notes.event
        self.collective = self._notes.collective
        self._recent: deque[StepRow] = deque(maxlen=32)
        self._first_request_ns = self._dropped = self._flush_ns = 0
        self.lock = threading.Lock()
        self._stop = threading.Event()
        self._ending: tuple[str, BaseException | None, Mapping[str, Any]] | None = None
        self._holders = 0
        self._thread = threading.Thread(target=self._run, name="pipeprof-flush", daemon=True)
        forks.guard(self)
        hook.observe_all(self._rebuilt)
        self._thread.start()
        atexit.register(self._at_exit)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close(status_of(error), error=error)

    # -- loaders -------------------------------------------------------------------------------------------

    def loader(self, dataset: Any, *, name: str = "", **arguments: Any) -> DataLoader[Any]:
        """A torch DataLoader over `dataset`, watched. `arguments` are DataLoader's own."""
        return self.observe(DataLoader(dataset, **arguments), name)

    def observe(self, loader: DataLoader[Any], name: str = "") -> DataLoader[Any]:
        """Watch a loader that exists, from its next iterator on; returns it."""
        watch = self.watch_of(loader, name)
        if not hook.observe(loader, watch):
            self._warn(f"this torch has no DataLoader._get_iterator: {watch.name} is not observed")
        elif hook.keeps_iterator(loader):
            self._warn(f"{watch.name} is not observed: its persistent workers had been started before")
        return loader

    def watch_of(self, loader: DataLoader[Any], name: str = "") -> LoaderWatch:
        """An observer for `loader`, entered in `run.json`."""
        watch = LoaderWatch(self, loader, len(self._loaders), name or f"loader{len(self._loaders)}")
        self._watches.append(watch)
        self.enter(watch.facts)
        return watch

    def _rebuilt(self, loader: DataLoader[Any]) -> LoaderWatch | None:
        """An observer for a loader that was made from one of ours, as Accelerate's `prepare` does."""
        ours = next((watch for watch in self._watches if watch.was_rebuilt_as(loader)), None)
        if ours is None or not self.active:
            return None
        ours.iterated = True
        self.hold()
        weakref.finalize(loader, self.release).atexit = False
        return self.watch_of(loader, ours.name)

    def enter(self, facts: dict[str, Any]) -> int:
        """Tell in `run.json` of something that is iterated. Returns its number there."""
        facts["id"] = len(self._loaders)
        self._loaders.append(facts)
        self.tell(loaders=self._loaders)
        return len(self._loaders) - 1

    def tell(self, **meta: Any) -> None:
        """Change `run.json`."""
        with self.lock:
            if self.active:
                try:
                    self.writer.update(**meta)
                except OSError as error:  # a loader is making its iterator: the user's loop goes on
                    self._fail(error)

    def unseen(self, what: str) -> None:
        """Tell in `run.json` of something that is not observed."""
        known = self.writer.meta["not_observed"]
        if what not in known:
            self.tell(not_observed=[*known, what])

    def add_watch(self, watch: IteratorWatch) -> None:
        """An iterator's ring has records to drain from now on."""
        self._gatherer.watches.append(watch)

    # -- the loop ------------------------------------------------------------------------------------------

    def requested(self, request_ns: int) -> None:
        """`next(iterator)` was called."""
        if self._first_request_ns == 0:
            self._first_request_ns = request_ns
        if not self.device:
            self._ask_device()

    def _ask_device(self) -> None:
        if self._device_wait is None:
            cuda: Any = torch.cuda
            if not cuda.is_initialized():  # is_available would ask the driver each time
                return
            self._device_wait = DeviceWait(cuda)
        self._device_wait.requested()

    def took(
        self,
        watch: IteratorWatch,
        order: int,
        key: tuple[int, int] | None,
        request_ns: int,
        take_ns: int,
        ready: int | None,
    ) -> None:
        """`next(iterator)` returned a batch, the `order`-th of its epoch."""
        step = self.steps_taken
        complete = not self.device and self._device_wait is None
        row = StepRow(step, watch, order, key, step < self.warmup_steps, request_ns, take_ns, ready, complete)
        if self._device_wait is not None:
            self._device_wait.took(row)
        self._steps[step] = row
        self._recent.append(row)
        self.wait_ns += take_ns - request_ns
        self.ready_batches = ready
        self.steps_taken = step + 1
        self._loop.took(row, take_ns - request_ns)

    def left_loop(self) -> None:
        """A loader has come to the end of its epoch."""
        self._loop.left()

    def step_launched(self, step: int, launch_ns: int | None = None) -> None:
        """The host has submitted `step` and goes on, now or at `launch_ns`."""
        row = self._steps.get(step)
        if row is not None:
            row.launch_ns = monotonic_ns() if launch_ns is None else launch_ns

    def device_times(self, times: Iterable[StepTimes]) -> None:
        """What the device has told of earlier steps."""
        for told in times:
            row = self._steps.get(told.step)
            if row is not None:
                row.device, row.complete = told, True

    # -- beside the loop -----------------------------------------------------------------------------------

    def summary(self) -> dict[str, float]:
        """A flat dictionary of the run so far, for any logger.

        steps, samples, samples_per_s, wait_s, wait_share (of the time from the first request to the last
        take), and `stage/<name>_share` of the time that went into making batches.
        """
        self.flush()
        wall_ns = self._recent[-1].take_ns - self._first_request_ns if self._recent else 0
        stages_ns = self._gatherer.stage_wall_ns
        making_ns = sum(stages_ns.values())
        return {
            "steps": self.steps_taken,
            "samples": self._gatherer.samples,
            "samples_per_s": self._gatherer.samples / wall_ns * 1e9 if wall_ns else 0.0,
            "wait_s": self.wait_ns / 1e9,
            "wait_share": self.wait_ns / wall_ns if wall_ns else 0.0,
            **{f"stage/{name}_share": ns / making_ns for name, ns in stages_ns.items() if making_ns},
        }

    # -- flushing ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        flushed = time.monotonic()
        while not self._stop.wait(LOOK_EVERY_S):
            watches = list(self._gatherer.watches)
            self._states.look(watches)
            if time.monotonic() - flushed >= FLUSH_EVERY_S or self._gatherer.fullest() > FULL_ENOUGH:
                self.flush()
                flushed = time.monotonic()
        if self._ending is not None:
            self._end(*self._ending)
        elif self.held_by_loaders and self._holders == 0:
            self.close()
            self.discard()

    def hold(self) -> None:
        """One more loader, or iterator of one, records into this session."""
        self._holders += 1

    def release(self) -> None:
        """One is gone. It may go in the middle of anything: the flush thread ends the run."""
        self._holders -= 1
        if self._holders == 0 and self.held_by_loaders and self.active:
            self._stop.set()

    def flush(self) -> None:
        """Hand to the kernel what is known by now."""
        with self.lock:
            if self.active:
                self._flush(last=False)

    def _flush(self, last: bool) -> None:
        began_ns = time.thread_time_ns()
        try:
            self._write(last)
        except OSError as error:
            self._fail(error)
        self._flush_ns += time.thread_time_ns() - began_ns

    def _fail(self, error: OSError) -> None:
        if self.failure is None:
            why = error.strerror or str(error)
            self.failure = TraceError(
                f"{self.directory} cannot be written any more: {why}",
                "free some space, or choose another out",
            )
            # without its frames: they hold the loader, through whose observer all of this would stay
            self.failure.__cause__ = error.with_traceback(None)
            self._warn(str(self.failure))

    def _write(self, last: bool) -> None:
        taken = self.steps_taken
        done, self._loop.done = self._loop.done, []
        tables = self._gatherer.gather(self._steps, taken, last)
        self.telemetry(monotonic_ns(), self._states.report() | self._steal.sensors())
        tables |= self._notes.taken()
        if self.failure is not None:  # the rings were emptied all the same: they would stay for ever
            return
        for name, columns in (*tables.items(), ("stages", loop_stages(done))):
            if columns:
                self.writer.append(name, columns)
        self.writer.flush()
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        dropped = self._gatherer.dropped + sum(one.ring.dropped() for one in list(self._gatherer.watches))
        if dropped > self._dropped:
            self._dropped = dropped
            self.writer.update(warnings=with_dropped(self.writer.meta["warnings"], dropped))

    def _warn(self, text: str) -> None:
        self.writer.meta["warnings"] = [*self.writer.meta.get("warnings", []), text]
        warnings.warn(f"pipeprof: {text}", RuntimeWarning, stacklevel=3)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, status: str = "complete", error: BaseException | None = None, **meta: Any) -> None:
        """End the run with a word of `trace.STATUSES`; `meta` goes into `run.json`. Later calls do nothing.

        Raises nothing for a full disk: see `failure`. What a handler of a signal raises here, as torch's
        does for a lost worker, is raised when the flush thread has ended the run.
        """
        if not self.active:
            return
        raised = None
        if threading.current_thread() is not self._thread:
            self._loop.end()
            self._ending = (status, error, meta)
            self._stop.set()
            raised = joined(self._thread)
        self._end(status, error, meta)
        if raised is not None and not (error and isinstance(raised, RuntimeError)):
            raise raised

    def _end(self, status: str, error: BaseException | None, meta: Mapping[str, Any]) -> None:
        with self.lock:
            if not self.active:
                return
            self._loop.end()
            for watch in self._gatherer.watches:
                watch.tell_lost()
            if self._device_wait is not None:
                self._device_wait.tell()
            self._flush(last=True)
            self.active = False
            self._states.close()
            self._finish_meta(error, meta)
            try:
                self.writer.close(status)
            except OSError as problem:
                why = problem.strerror or str(problem)
                self.failure = self.failure or TraceError(f"{self.directory} cannot be written: {why}")
        hook.observe_no_more(self._rebuilt)
        if forks.unguard(self) == 0:
            stages.uninstall()
        if self._scratch is None:
            atexit.unregister(self._at_exit)

    def _finish_meta(self, error: BaseException | None, meta: Mapping[str, Any]) -> None:
        found = self.writer.meta
        found |= at_the_end(found, error, [watch.name for watch in self._watches if not watch.iterated])
        if self._device_wait is not None:
            self._device_wait.enter(found)
        if self.steps_taken:
            found["overhead"] = {**found["overhead"], "flush_ns": self._flush_ns / self.steps_taken}
        found.update(meta)

    def _at_exit(self) -> None:
        """The program ends and has not closed the run."""
        self.close(status_of(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)))
        self.discard()

    def discard(self) -> None:
        """Remove the temporary run directory, where there is one."""
        if self._scratch is not None:
            remove_scratch(self._scratch)
        self._scratch = None
        atexit.unregister(self._at_exit)

    def forked(self) -> None:
        """In a forked child: the run is the parent's. Nothing flushes, closes or removes any of it here."""
        self.active = False
        self._scratch = None
        self.lock = threading.Lock()
        for watch in self._gatherer.watches:
            watch.let_go()
