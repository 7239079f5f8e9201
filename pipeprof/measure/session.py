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
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final, NamedTuple

import torch
from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError, TraceError
from pipeprof.measure import forks, hook, ranks, stages
from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.calibrate import own_cost
from pipeprof.measure.loop import DeviceWait, LoopSink
from pipeprof.measure.rows import Gatherer, StepRow, loop_stages
from pipeprof.measure.scratch import remove_scratch
from pipeprof.measure.session_facts import not_observed_here, session_facts, status_of
from pipeprof.measure.steal import Steal
from pipeprof.measure.watch import IteratorWatch, LoaderWatch
from pipeprof.measure.worker_state import WorkerStates

FLUSH_EVERY_S: Final = 0.8
LOOK_EVERY_S: Final = 0.05
FULL_ENOUGH: Final = 0.25
"""A ring this full is drained at once."""
RING_RECORDS: Final = 16_384
"""2 MiB a worker. The flush thread looks 20 times a second: room for 240,000 records a second."""


class Live(NamedTuple):
    """What a live display shows; cheap to ask for."""

    steps: int
    samples: int
    """Of the steps that have been flushed."""
    ready_batches: int | None
    """Finished by workers and not yet taken, when the last batch was asked for."""
    waits_ns: tuple[int, ...]
    """The last waits, oldest first: take - request of up to 32 steps."""
    elapsed_ns: int
    """Since the first request; 0 before it."""


class Session:
    """An observed run. Use it as a context manager, or call `close`.

    `out` is the run directory, or None for a temporary one that goes with the process. `meta` is merged into
    `run.json`. The first `warmup_steps` steps are marked as such. `detail` is "batch", or "sample" to keep
    every span. `device` says that `step_launched` and `device_times` will be told of each step: a step is
    then written when its times are known, or at the end; without it, when its batch was taken. A session that
    is `held_by_loaders` ends with the last of them.

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
        self.kind = kind
        self.warmup_steps = warmup_steps
        self.every_sample = detail == "sample"
        self.device = device
        self.ring_records = RING_RECORDS * 4 if self.every_sample else RING_RECORDS
        self.held_by_loaders = held_by_loaders
        self.active = True
        self.steps_taken = 0
        self.wait_ns = 0
        self.ready_batches: int | None = None
        self.failure: TraceError | None = None
        facts = {**session_facts(kind, name), "overhead": own_cost(), "warmup_steps": warmup_steps}
        self.writer, self._scratch, self.unwritten = ranks.open_writer(out, {**facts, **(meta or {})})
        self.directory = self.writer.directory
        self._start()

    def _start(self) -> None:
        self._loaders: list[dict[str, Any]] = []
        self._gatherer = Gatherer()
        self._states = WorkerStates()
        self._steal = Steal()
        self._loop = LoopSink()
        self._device_wait: DeviceWait | None = None
        self._steps: dict[int, StepRow] = {}
        self._telemetry: list[tuple[int, str, float]] = []
        self._collectives: list[tuple[int, int, int]] = []
        self._events: list[tuple[int, str, int | None, int | None, int | None, str | None]] = []
        self._recent: deque[StepRow] = deque(maxlen=32)
        self._first_request_ns = 0
        self.lock = threading.Lock()
        self._stop = threading.Event()
        self._holders = 0
        self._thread = threading.Thread(target=self._run, name="pipeprof-flush", daemon=True)
        forks.guard(self)
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
        if not hook.observe(loader, self.watch_of(loader, name)):
            self._warn(f"this torch has no DataLoader._get_iterator: {name or 'the loader'} is not observed")
        return loader

    def watch_of(self, loader: DataLoader[Any], name: str = "") -> LoaderWatch:
        """An observer for `loader`, entered in `run.json`."""
        watch = LoaderWatch(self, loader, len(self._loaders), name or f"loader{len(self._loaders)}")
        self.enter(watch.facts)
        return watch

    def enter(self, facts: dict[str, Any]) -> int:
        """Tell in `run.json` of something that is iterated. Returns its number there."""
        facts["id"] = len(self._loaders)
        self._loaders.append(facts)
        with self.lock:
            if self.active:
                self.writer.update(loaders=self._loaders)
        return len(self._loaders) - 1

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

    def telemetry(self, time_ns: int, values: Mapping[str, float]) -> None:
        """Readings of sensors at one instant (`CLOCK_MONOTONIC`). Any thread may call."""
        self._telemetry.extend((time_ns, sensor, value) for sensor, value in values.items())

    def event(
        self,
        kind: str,
        *,
        loader: int | None = None,
        epoch: int | None = None,
        worker: int | None = None,
        detail: str | None = None,
        time_ns: int | None = None,
    ) -> None:
        """Something that happened once, a word of `trace.EVENTS`: now, or at `time_ns`."""
        when = monotonic_ns() if time_ns is None else time_ns
        self._events.append((when, kind, loader, epoch, worker, detail))

    def collective(self, step: int, start_ns: int, end_ns: int) -> None:
        """After `step` this rank met the others: it came at `start_ns` and went on at `end_ns`."""
        self._collectives.append((step, start_ns, end_ns))

    def live(self) -> Live:
        """A snapshot for a live display."""
        first = self._first_request_ns
        elapsed_ns = monotonic_ns() - first if first else 0
        rows = list(self._recent)
        waits = tuple(row.take_ns - row.request_ns for row in rows)
        return Live(self.steps_taken, self._gatherer.samples, self.ready_batches, waits, elapsed_ns)

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
        if self.held_by_loaders and self._holders == 0:
            self.close()
            self.discard()

    def hold(self) -> None:
        """One more loader records into this session."""
        self._holders += 1

    def release(self) -> None:
        """A loader is gone. It may go in the middle of anything: the flush thread ends the run."""
        self._holders -= 1
        if self._holders == 0:
            self._stop.set()

    def flush(self) -> None:
        """Hand to the kernel what is known by now."""
        with self.lock:
            if self.active and self.failure is None:
                self._flush(last=False)

    def _flush(self, last: bool) -> None:
        try:
            self._write(last)
        except OSError as error:
            why = error.strerror or str(error)
            self.failure = TraceError(
                f"{self.directory} cannot be written any more: {why}",
                "free some space, or choose another out",
            )
            self.failure.__cause__ = error
            self._warn(str(self.failure))

    def _write(self, last: bool) -> None:
        taken = self.steps_taken
        done, self._loop.done = self._loop.done, []
        tables = self._gatherer.gather(self._steps, taken, last)
        self.telemetry(monotonic_ns(), self._states.report() | self._steal.sensors())
        telemetry, self._telemetry = self._telemetry, []
        events, self._events = self._events, []
        collectives, self._collectives = self._collectives, []
        for name, columns in tables.items():
            if columns:
                self.writer.append(name, columns)
        for name, columns in (
            ("stages", loop_stages(done)),
            ("telemetry", _columns(telemetry, ("time_ns", "sensor", "value"))),
            ("collectives", _columns(collectives, ("step", "start_ns", "end_ns"))),
            ("events", _columns(events, ("time_ns", "kind", "loader", "epoch", "worker", "detail"))),
        ):
            if columns:
                self.writer.append(name, columns)
        self.writer.flush()

    def _warn(self, text: str) -> None:
        self.writer.meta["warnings"] = [*self.writer.meta.get("warnings", []), text]
        warnings.warn(f"pipeprof: {text}", RuntimeWarning, stacklevel=3)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, status: str = "complete", error: BaseException | None = None, **meta: Any) -> None:
        """End the run with a word of `trace.STATUSES`; `meta` goes into `run.json`. Later calls do nothing.

        Raises nothing for a full disk: see `failure`.
        """
        if not self.active:
            return
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self.lock:
            if not self.active:
                return
            self._loop.end()
            for watch in self._gatherer.watches:
                watch.tell_lost()
            if self._device_wait is not None:
                self._device_wait.tell()
            if self.failure is None:
                self._flush(last=True)
            self.active = False
            self._states.close()
            self._finish_meta(error, meta)
            try:
                self.writer.close(status)
            except OSError as problem:
                why = problem.strerror or str(problem)
                self.failure = self.failure or TraceError(f"{self.directory} cannot be written: {why}")
        if forks.unguard(self) == 0:
            stages.uninstall()
        if self._scratch is None:
            atexit.unregister(self._at_exit)

    def _finish_meta(self, error: BaseException | None, meta: Mapping[str, Any]) -> None:
        found = self.writer.meta
        if error is not None:
            found["error"] = f"{type(error).__name__}: {error}"
        if self._device_wait is not None:
            self._device_wait.enter(found)
        if self._gatherer.dropped:
            found["warnings"] = [
                *found["warnings"],
                f"{self._gatherer.dropped} records found their buffer full and were dropped",
            ]
        found["not_observed"] = [*found["not_observed"], *not_observed_here()]
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


def _columns(rows: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
