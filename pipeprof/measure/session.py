"""One observed run in this process: owns the run directory, the flush thread and the watched loaders.

The loop's thread appends plain tuples to lists; the flush thread turns them and the workers' rings into rows
of the trace, in bulk, at least once a second. Only one thread at a time touches the writer.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError
from pipeprof.measure import hook
from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.rows import Gatherer, StepRow
from pipeprof.measure.scratch import new_scratch, remove_scratch
from pipeprof.measure.watch import IteratorWatch, LoaderWatch
from pipeprof.trace import TraceWriter

FLUSH_EVERY_S: Final = 0.8
DRAIN_EVERY_S: Final = 0.2
RING_RECORDS: Final = 16_384
"""1 MiB a worker: at 5 drains a second room for 80,000 records a second."""


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
    """Since the first request, 0 before it."""


class Session:
    """An observed run. Use as a context manager, or call `close`.

    `out` is the run directory, or None for a temporary one that goes with the process. `meta` is merged into
    `run.json`. `warmup_steps` are marked as such. `detail` is "batch" or "sample": the latter keeps every
    span. `device` says that launch and device times of each step will be told with `step_launched` and
    `device_times`; without it a step's row is complete when the next batch is asked for.

    Raises `TraceError` where the directory cannot be written, `MeasureError` for an unknown `detail`.
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
    ) -> None:
        if detail not in ("batch", "sample"):
            raise MeasureError(f"detail is {detail!r}", 'choose "batch" or "sample"')
        self.warmup_steps = warmup_steps
        self.every_sample = detail == "sample"
        self.device = device
        self.ring_records = RING_RECORDS
        self.active = True
        self.steps_taken = 0
        self._scratch = new_scratch() if out is None else None
        self.directory = Path(out) if out is not None else self._scratch
        assert self.directory is not None
        self.writer = TraceWriter(self.directory, {**_meta(kind, name), **(meta or {})})
        self._loaders: list[LoaderWatch] = []
        self._gatherer = Gatherer()
        self._steps: dict[int, StepRow] = {}
        self._open_row: StepRow | None = None
        self._telemetry: list[tuple[int, str, float]] = []
        self._events: list[tuple[int, str, int | None, int | None, int | None, str | None]] = []
        self._waits: deque[int] = deque(maxlen=32)
        self._ready: int | None = None
        self._first_request = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipeprof-flush", daemon=True)
        self._pid = os.getpid()
        self._thread.start()
        atexit.register(self._at_exit)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.close("complete")
        else:
            self.close("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed", error=error)

    # -- loaders ---------------------------------------------------------------------------------------

    def loader(self, dataset: Any, *, name: str = "loader", **arguments: Any) -> DataLoader[Any]:
        """A torch DataLoader over `dataset`, watched. `arguments` are DataLoader's own."""
        return self.observe(DataLoader(dataset, **arguments), name)

    def observe(self, loader: DataLoader[Any], name: str = "loader") -> DataLoader[Any]:
        """Watch a loader that exists; returns it."""
        watch = LoaderWatch(self, loader, len(self._loaders), name)
        self._loaders.append(watch)
        hook.observe(loader, watch)
        self._update_loaders()
        return loader

    def _update_loaders(self) -> None:
        with self._lock:
            if self.active:
                self.writer.update(loaders=[watch.facts for watch in self._loaders])

    def watching(self, watch: IteratorWatch) -> None:
        """An iterator's ring has records to drain from now on."""
        self._gatherer.watches.append(watch)

    # -- the loop --------------------------------------------------------------------------------------

    def requested(self, request_ns: int) -> None:
        """`next(iterator)` was called: the step before it is over."""
        if self._first_request == 0:
            self._first_request = request_ns
        row = self._open_row
        if row is not None and not self.device:
            row.complete = True

    def took(
        self,
        loader: int,
        epoch: int,
        order: int,
        key: tuple[int, int, int] | None,
        request_ns: int,
        take_ns: int,
        ready: int | None,
    ) -> None:
        """`next(iterator)` returned a batch, the `order`-th of its epoch."""
        step = self.steps_taken
        row = StepRow(step, loader, epoch, order, key, step < self.warmup_steps, request_ns, take_ns, ready)
        self._steps[step] = self._open_row = row
        self._waits.append(take_ns - request_ns)
        self._ready = ready
        self.steps_taken = step + 1

    def step_launched(self, step: int, launch_ns: int | None = None) -> None:
        """The host has submitted `step` and goes on, now or at `launch_ns`."""
        row = self._steps.get(step)
        if row is not None:
            row.launch_ns = launch_ns if launch_ns is not None else monotonic_ns()

    def device_times(self, times: Iterable[StepTimes]) -> None:
        """What the device has told of earlier steps."""
        for told in times:
            row = self._steps.get(told.step)
            if row is not None:
                row.device = told
                row.complete = True

    # -- beside the loop ---------------------------------------------------------------------------------

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
        """Something that happened once: a word of `trace.EVENTS`."""
        when = monotonic_ns() if time_ns is None else time_ns
        self._events.append((when, kind, loader, epoch, worker, detail))

    def live(self) -> Live:
        """A snapshot for a live display."""
        now, first = monotonic_ns(), self._first_request
        return Live(
            self.steps_taken,
            self._gatherer.samples,
            self._ready,
            tuple(self._waits),
            now - first if first else 0,
        )

    # -- flushing ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        flushed = time.monotonic()
        while not self._stop.wait(DRAIN_EVERY_S):
            due = time.monotonic() - flushed >= FLUSH_EVERY_S
            if due or self._gatherer.fullest() > 0.25:
                with self._lock:
                    if self.active:
                        self._flush()
                flushed = time.monotonic()

    def flush(self) -> None:
        """Write what is known by now."""
        with self._lock:
            if self.active:
                self._flush()

    def _flush(self, last: bool = False) -> None:
        tables = self._gatherer.gather(self._steps, self.steps_taken, last)
        telemetry, self._telemetry = self._telemetry, []
        events, self._events = self._events, []
        tables["telemetry"] = _columns(telemetry, ("time_ns", "sensor", "value"))
        tables["events"] = _columns(events, ("time_ns", "kind", "loader", "epoch", "worker", "detail"))
        for name, columns in tables.items():
            if columns:
                self.writer.append(name, columns)
        self.writer.flush()

    def close(self, status: str = "complete", error: BaseException | None = None, **meta: Any) -> None:
        """End the run with a word of `trace.STATUSES`. Later calls, and calls in a fork, do nothing."""
        if not self.active or os.getpid() != self._pid:
            return
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._flush(last=True)
            self.active = False
            self._gatherer.close()
            if error is not None:
                meta["error"] = f"{type(error).__name__}: {error}"
            if meta:
                self.writer.update(**meta)
            self.writer.close(status)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        with suppress(Exception):
            self.close("interrupted")
        self.discard()

    def discard(self) -> None:
        """Remove the temporary run directory, where there is one."""
        if self._scratch is not None and os.getpid() == self._pid:
            remove_scratch(self._scratch)


def _columns(rows: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}


def _meta(kind: str, name: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "created_at": datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds"),  # noqa: UP017
        "command": list(sys.argv),
        "clock": {"monotonic_ns": monotonic_ns(), "unix_ns": time.time_ns()},
        "scenario": None,
        "loaders": [],
        "accelerator": {"kind": "none", "emulated": False},
        "storage": None,
        "packages": {name: _version(name) for name in ("pipeprof", "torch", "torchvision", "pyarrow")},
        "emulated": [],
        "not_observed": [],
        "warnings": [],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
