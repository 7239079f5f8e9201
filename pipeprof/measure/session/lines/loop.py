"""Samples the lines of the thread that runs the training loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Final

import pipeprof
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.sampling.call_tree import CallTree
from pipeprof.measure.probe.sampling.cpu_signal import CpuSampler, make_tree
from pipeprof.measure.probe.sampling.line_sampler import LineSampler, is_ours
from pipeprof.measure.probe.sampling.lock_state import LockState
from pipeprof.measure.probe.sampling.lock_watch import LockWatch, stack_text
from pipeprof.measure.probe.spans import GETITEM, NOWHERE, Sink
from pipeprof.measure.session.lines.drain import Row, TreeReader
from pipeprof.record.names.counters import OWN_LINES_CPU_NS, PIN_STAGE

WAIT: Final = "wait"
"""The loop waits for a batch that others make."""
MAIN: Final = "main"
"""The loop's own code, between two batches."""


class LoopLines:
    """Samples the thread that asks for the first batch, while it is in a loop over a loader."""

    def __init__(self, loop: Sink) -> None:
        self._loop = loop
        self._reader = TreeReader()
        self._rows: list[Row] = []
        self._lock = threading.Lock()
        self._computing = CpuSampler(self._stage, make_tree(is_edge, is_ours))
        self._sampler: LineSampler | None = None
        self._lock_watch = LockWatch(LockState(), partial(stack_text, CallTree(is_edge, is_ours)))
        self._counted_ns = 0
        self._place: str | None = None
        self._recorder: BatchRecorder | None = None

    @property
    def own_cpu_ns(self) -> int:
        """Return the CPU time of the sampling thread, and of the samples that the loop's thread takes of
        itself."""
        return self._computing.own_cpu_ns + (0 if self._sampler is None else self._sampler.own_cpu_ns)

    def requested(self, recorder: BatchRecorder | None) -> None:
        """Note a request of the loop; without workers, `recorder` records the making in this thread."""
        self._recorder, self._place = recorder, WAIT
        self._start()

    def drawing(self) -> None:
        """Note that an epoch begins: torch draws its first indices before the loop asks for a batch."""
        self._recorder, self._place = None, WAIT
        self._start()

    def _start(self) -> None:
        if self._sampler is None:
            self._computing.start()
            self._lock_watch.watch(threading.get_native_id(), self._stage)
            self._sampler = LineSampler(
                threading.get_ident(),
                self._stage,
                self._keep,
                is_edge,
                cpu_is_sampled=self._computing.is_running,
                queued=self._computing.queued,
                lock=self._lock_watch,
            )
            self._sampler.start()

    def pinning(self, thread: threading.Thread, has_none_ready: Callable[[], bool]) -> None:
        """Note the thread that pins the batches of an iterator. Its waits count while no batch is ready."""
        if thread.native_id is not None:
            self._lock_watch.watch(thread.native_id, lambda: PIN_STAGE if has_none_ready() else None)

    def took(self) -> None:
        """Note that the loop has its batch."""
        self._place = MAIN

    def left(self) -> None:
        """Note that the loop has ended; what follows is outside of every loop."""
        self._place = None

    def stop(self) -> None:
        """Stop sampling."""
        self._computing.stop()
        if self._sampler is not None:
            self._sampler.stop()

    def take(self) -> list[Row]:
        """Return the rows of `lines` since the last call."""
        with self._lock:
            rows, self._rows = self._rows, []
        return rows

    def _stage(self) -> str | None:
        place, recorder = self._place, self._recorder
        if place == WAIT and recorder is not None and recorder.open:
            return GETITEM if recorder.current is NOWHERE else recorder.current.name
        if place == MAIN and self._loop.current is not NOWHERE:
            return self._loop.current.name
        return place

    def _keep(self, tree: CallTree) -> None:
        own_ns = self.own_cpu_ns
        tally.add(OWN_LINES_CPU_NS, own_ns - self._counted_ns)
        self._counted_ns = own_ns
        rows = [row for each in (tree, self._computing.tree) for row in self._reader.rows(each)]
        with self._lock:
            self._rows += rows


def is_edge(code: CodeType) -> bool:
    """Return whether a frame is pipeprof's own runner of a script, or one of its verbs, above which nothing
    is the user's."""
    file = code.co_filename
    return file.endswith(("session/script.py", "<frozen runpy>")) or file.startswith(_VERBS)


_VERBS: Final = os.path.join(os.path.dirname(pipeprof.__file__), "cli", "")  # noqa: PTH118, PTH120 - as code has it
