"""Writes the run's record from a separate thread, at least once a second.

The loop's thread only appends to lists; this turns those and the workers' rings into rows, in bulk. One
thread at a time touches the writer: whoever holds `lock`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

from pipeprof.errors import TraceError
from pipeprof.measure.host.sensors.processors import Cores, Spin, Steal, cpu_times
from pipeprof.measure.host.sensors.programs import Programs
from pipeprof.measure.host.sensors.reads import Reads
from pipeprof.measure.probe.counting.files_read import FilesRead
from pipeprof.measure.progress import say
from pipeprof.measure.session.drain import Drained, RingSource
from pipeprof.measure.session.hang import HangWatch
from pipeprof.measure.session.interrupts.clocks import Clocks
from pipeprof.measure.session.interrupts.gaps import Gaps
from pipeprof.measure.session.lines.drain import (
    COUNTER_COLUMNS,
    LINE_COLUMNS,
    Row,
    own_counters,
    private_bytes,
)
from pipeprof.measure.session.pending import Pending
from pipeprof.measure.session.run_meta import dropped_warning
from pipeprof.measure.session.steps.loop_sink import stage_columns
from pipeprof.measure.session.steps.steps import Steps
from pipeprof.measure.session.worker_state import WorkerStates
from pipeprof.record.columns import by_name
from pipeprof.record.meta import RunMeta, SlowFileMeta
from pipeprof.record.names.counters import OWN_LINES_CPU_NS
from pipeprof.record.schema import Status
from pipeprof.record.writer import TraceWriter, warm_up

FLUSH_EVERY_S: Final = 0.6
"""Time between two flushes: a kill loses less than a second even if the thread waits for a core."""
LOOK_EVERY_S: Final = 0.05
REST_S: Final = 0.15
"""Time between two looks if there is nothing to look at: each wakes the thread, for 40 to 90 µs of CPU."""
ENOUGH_LOOKS: Final = 200
"""Looks at workers that the loop waits for, after which rarer ones tell as much of what workers do."""
LEVELS_EVERY_S: Final = 1.0
FULL_ENOUGH: Final = 0.25
"""A ring this full is drained at once."""
NEARLY_EMPTY: Final = FULL_ENOUGH / 8
"""A ring that is at most this full will not be full before the next look, however fast the batches come."""


class Rhythm:
    """Times of the looks and of the flushes.

    Looks are rarer while the rings are nearly empty and no loop waits for a batch, since what workers do
    matters only while one waits, and once there have been enough of them. Flushes come sooner if the thread
    gets its core late, as may happen again the next time.
    """

    def __init__(self, now_s: float) -> None:
        self._looked_s = self._flushed_s = now_s
        self._late_s = 0.0
        self._looks_at_waits = 0
        self.pause_s = LOOK_EVERY_S
        """Time to let pass until the next look."""

    def is_due(self, now_s: float) -> bool:
        """Count a look, and return True if it is time to flush."""
        self._late_s = max(self._late_s, now_s - self._looked_s - self.pause_s)
        self._looked_s = now_s
        return now_s - self._flushed_s >= FLUSH_EVERY_S - 2 * self._late_s

    def flush(self, now_s: float) -> None:
        """Note that a flush begins. Lateness decays by half at each flush."""
        self._flushed_s = now_s
        self._late_s /= 2

    def rest(self, is_filling: bool, is_waiting: bool) -> None:
        """Set the next pause: longer if there is nothing to look at, and never beyond the next flush.

        A ring may be filling, and a loop may be waiting.
        """
        self._looks_at_waits += is_waiting
        until_due_s = self._flushed_s + FLUSH_EVERY_S - self._looked_s
        is_busy = is_filling or (is_waiting and self._looks_at_waits <= ENOUGH_LOOKS)
        self.pause_s = LOOK_EVERY_S if is_busy else max(LOOK_EVERY_S, min(REST_S, until_due_s))


class Flusher:
    """Owns the writer of a run, and the thread that flushes until it is stopped, and then calls `stopped`."""

    def __init__(
        self, writer: TraceWriter, steps: Steps, pending: Pending, stopped: Callable[[], None]
    ) -> None:
        self.active = True
        """True while the run is being written; False after its end, and in a forked child."""
        self.sources: list[RingSource] = []
        """Iterators whose rings have records to drain."""
        self.stage_wall_ns: dict[str, int] = {}
        self.lines_cpu_ns = 0
        """CPU time that sampling lines has taken, in all processes."""
        self.files: FilesRead | None = None
        """Files that batches are made from; None if they are not kept."""
        self.failure: TraceError | None = None
        """Reason why the run can no longer be written."""
        self.hangs: HangWatch | None = None
        """Watch over waits that are very long, if it is asked for."""
        self.lock = threading.Lock()
        self._writer, self._steps, self._pending, self._stopped = writer, steps, pending, stopped
        self._states, self._steal, self._spin = WorkerStates(), Steal(), Spin()
        self._cores, self._programs = Cores(), Programs()
        self._reads = Reads(writer.meta.reading.io_limits)
        self._dropped = self._dropped_of_gone = 0
        self._warnings: list[str] = []
        self._thread_cpu_ns = self._others_cpu_ns = 0
        self._levels_due_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipeprof-flush", daemon=True)

    def start(self) -> None:
        """Flush from now on. The first flush costs no more than later ones: a kill may come at any time."""
        warm_up()
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, without waiting for it."""
        self._stop.set()

    def is_current_thread(self) -> bool:
        """Return whether the calling thread is the one that flushes."""
        return threading.current_thread() is self._thread

    def join(self, patience_s: float = inf) -> BaseException | None:
        """Wait for the thread to end, even if signal handlers raise; return the last exception."""
        raised = None
        deadline = time.monotonic() + patience_s
        while self._thread.is_alive() and (left_s := deadline - time.monotonic()) > 0:
            try:
                self._thread.join(None if left_s == inf else left_s)
            except BaseException as error:  # Ctrl-C, or torch's word of a lost worker
                raised = error
        return raised

    def forked(self) -> None:
        """Forget the run in a forked child: it is the parent's."""
        self.active = False
        self.lock = threading.Lock()
        for source in self.sources:
            source.let_go()

    # -- run.json ------------------------------------------------------------------------------------------

    @property
    def meta(self) -> RunMeta:
        """Return the content of `run.json`."""
        return self._writer.meta

    def amend(self, change: Callable[[RunMeta], RunMeta]) -> None:
        """Change `run.json`."""
        with self.lock:
            if self.active:
                try:
                    self._writer.write_meta(change(self._writer.meta))
                except OSError as error:  # a loader is making its iterator: the user's loop goes on
                    self._fail(error)

    def move(self, directory: Path, change: Callable[[RunMeta], RunMeta]) -> Path:
        """Go on writing in `directory`, and change `run.json`; return where that is.

        Raises `TraceError` if it cannot be.
        """
        with self.lock:
            if self.active:
                self._writer.move(directory)
                self._writer.write_meta(change(self._writer.meta))
            return self._writer.directory

    def warn(self, text: str) -> None:
        """Warn the user, and enter the warning into `run.json` with its next change."""
        meta = self._writer.meta
        self._writer.meta = replace(meta, warnings=(*meta.warnings, text))
        try:
            warnings.warn(f"pipeprof: {text}", RuntimeWarning, stacklevel=3)
        except RuntimeWarning:  # the program turns warnings into errors, and this one is not about it
            say(f"pipeprof: {text}")

    def note_warning(self, text: str) -> None:
        """Enter a warning into `run.json` with the next flush. Any thread may call it, whatever it holds."""
        self._warnings.append(text)

    # -- flushing ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        rhythm = Rhythm(time.monotonic())
        gaps, clocks = Gaps(), Clocks()
        while not self._stop.wait(rhythm.pause_s):
            sources = list(self.sources)
            self._look_outside(gaps, clocks, sources)
            for source in sources:
                source.record_losses()
            if self.hangs is not None:
                self.hangs.look(sources)
            fullest = max((source.ring.fullest() for source in sources), default=0.0)
            if rhythm.is_due(time.monotonic()) or fullest > FULL_ENOUGH:
                rhythm.flush(time.monotonic())
                self.flush()
            rhythm.rest(fullest >= NEARLY_EMPTY, any(source.is_waited_for for source in sources))
            self._thread_cpu_ns = time.thread_time_ns()
        self._stopped()

    @property
    def cpu_ns(self) -> int:
        """Return the CPU time of the flush thread, and of flushes by other threads."""
        own_ns = time.thread_time_ns() if self.is_current_thread() else self._thread_cpu_ns
        return own_ns + self._others_cpu_ns

    def _look_outside(self, gaps: Gaps, clocks: Clocks, sources: Sequence[RingSource]) -> None:
        """Record standstills of the process and of workers, and jumps of the clocks."""
        event = self._pending.event
        if suspended_ns := gaps.look():
            event("suspended", detail=str(suspended_ns))
        for stop in self._states.look(sources):
            event("suspended", loader=stop.loader, worker=stop.worker, detail=str(stop.duration_ns))
        jumped = clocks.look()
        if jumped.slept_ns:
            event("slept", detail=str(jumped.slept_ns))
        if jumped.set_ns:
            event("clock_set", detail=str(jumped.set_ns))

    def flush(self) -> None:
        """Write everything recorded so far."""
        with self.lock:
            if self.active:
                self._flush(last=False)

    def _flush(self, last: bool) -> None:
        began_ns = time.thread_time_ns()
        try:
            self._write(last)
        except OSError as error:
            self._fail(error)
        if not self.is_current_thread():
            self._others_cpu_ns += time.thread_time_ns() - began_ns

    def _write(self, last: bool) -> None:
        taken = self._steps.taken
        marked = self._steps.sink.take()
        tables = self._drain(last)
        tables["steps"] = self._steps.take(taken, last)
        self._forget_old_epochs()
        if not last:
            self._programs.begin()
        times = cpu_times()
        sensed = self._states.report() | self._steal.read(times) | self._spin.read() | self._reads.read()
        if not self._pending.counts_cores:
            sensed |= self._cores.read(times)
        self._pending.sensed(monotonic_ns(), sensed)
        tables |= self._pending.take()
        if self.failure is not None:  # the rings were emptied all the same: they would stay for ever
            return
        for name, columns in (*tables.items(), ("stages", stage_columns(marked))):
            if columns:
                self._writer.append(name, columns)
        self._writer.flush()
        self._warn_of_dropped()
        if self._warnings:
            noted, self._warnings = self._warnings, []
            meta = self._writer.meta
            self._writer.write_meta(replace(meta, warnings=(*meta.warnings, *noted)))

    def _drain(self, last: bool) -> dict[str, dict[str, Any]]:
        """Drain the rings; close those of iterators that are gone, or all of them the last time."""
        drained = Drained()
        lines: list[Row] = []
        counters: list[Row] = []
        if self._steps.lines is not None:
            lines += self._steps.lines.take()
        now_s = time.monotonic()
        with_levels = not last and now_s >= self._levels_due_s
        if with_levels:
            self._levels_due_s = now_s + LEVELS_EVERY_S
        counters += own_counters(with_levels)
        for source in list(self.sources):
            gone = source.gone or last
            source.sort_inbox()
            if source.aides is not None:
                of_lines, of_counters = source.aides.drain()
                source.private_bytes.update(private_bytes(of_counters))
                lines += of_lines
                counters += of_counters
            drained.add(source)
            if gone:
                self.sources.remove(source)
                self._dropped_of_gone += source.ring.dropped()
                source.close()
        counters += drained.counters
        if self.files is not None:
            self.files.add(drained.files)
            for source, sample, took_ns in drained.slow:
                if self.files.is_slow(took_ns) and (path := source.file_of(sample)) is not None:
                    self.files.add_slow(SlowFileMeta(source.loader_number, sample, took_ns, path))
            if self.sources:
                self.files.look(self.sources[-1].threads(), self._writer.directory)
        self.lines_cpu_ns += sum(row[-1] for row in counters if row[-2] == OWN_LINES_CPU_NS)
        tables = drained.tables()
        for name, wall_ns in drained.stage_wall_ns.items():
            self.stage_wall_ns[name] = self.stage_wall_ns.get(name, 0) + wall_ns
        tables["lines"] = by_name(lines, LINE_COLUMNS)
        tables["counters"] = by_name(counters, COUNTER_COLUMNS)
        return tables

    def _forget_old_epochs(self) -> None:
        """Forget batches that were made and never taken, with their epoch, as after a `break`."""
        unwritten = self._steps.unwritten_epochs()
        for source in self.sources:
            for epoch in list(source.finished):
                if epoch < source.epoch and (id(source), epoch) not in unwritten:
                    del source.finished[epoch]
            source.forget_handovers_before(source.epoch)

    def _warn_of_dropped(self) -> None:
        dropped = self._dropped_of_gone + sum(source.ring.dropped() for source in list(self.sources))
        if dropped > self._dropped:
            before, text = dropped_warning(self._dropped), dropped_warning(dropped)
            self._dropped = dropped
            meta = self._writer.meta
            others = (warning for warning in meta.warnings if warning != before)
            self._writer.write_meta(replace(meta, warnings=(*others, text)))

    def _fail(self, error: OSError) -> None:
        """Note that the run can no longer be written, and print that once, even if warnings are errors."""
        if self.failure is not None:
            return
        why, is_there = error.strerror or str(error), self._writer.directory.exists()
        self.failure = TraceError(
            f"{self._writer.directory} cannot be written any more: {why}",
            "free some space, or choose another out" if is_there else "leave it in place while a run lasts",
        )
        # without its frames: they hold the loader, through whose observer all of this would stay
        self.failure.__cause__ = error.with_traceback(None)
        meta = self._writer.meta
        self._writer.meta = replace(meta, unrecorded=why, warnings=(*meta.warnings, str(self.failure)))
        if meta.kind != "bench":  # which ends with this failure, and says it then
            kept = "what was recorded until now is " + ("kept" if is_there else "gone with it")
            say(f"pipeprof: {self.failure}. The program goes on; {kept}")

    # -- the end -------------------------------------------------------------------------------------------

    def finish(self, status: Status, final: Callable[[RunMeta], RunMeta]) -> bool:
        """Write all that is left, change `run.json` for the last time, and close it.

        Returns False if the run had ended already.
        """
        with self.lock:
            if not self.active:
                return False
            self._steps.end()
            for source in self.sources:
                source.record_lost_workers()
            self._flush(last=True)
            self.active = False
            self._states.close()
            meta = final(self._writer.meta)
            machine = replace(meta.machine, programs=self._programs.busiest())
            self._writer.meta = replace(meta, machine=machine)
            try:
                self._writer.close(status)
            except OSError as error:
                self._fail(error)
                with suppress(OSError):  # the tables may be what has no room, and not this
                    self._writer.write_meta(replace(self._writer.meta, status=status))
            self._stopped = _nothing  # the session's: each would keep the other
        return True


def _nothing() -> None:
    """Do nothing."""
