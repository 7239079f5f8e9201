"""Kernel times of a few steps, by torch.profiler: only on request, since it slows the steps that it traces.

Its times are on a clock of its own. Marks of ours in the trace, between two readings of the host's clock, put
them on `CLOCK_MONOTONIC`: the tightest counts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from pipeprof.errors import first_line
from pipeprof.measure.device.here import device_in_use

LEAD: Final = 3
"""Steps before the first one that is traced: they load kernels, which torch.profiler must not see."""
MARKS: Final = 3
MOST: Final = 200_000
"""Kernels that are kept; more would make the record large and say nothing more."""
_MARK: Final = "pipeprof.mark"
_OPERATOR: Final = "aten::"


class Kernel(NamedTuple):
    """One kernel of the device; one outermost operator if the program uses none."""

    name: str
    start_ns: int
    wall_ns: int
    device: int | None
    """None for an operator on the CPU."""
    stream: int | None


class KernelTrace:
    """Traces `count` steps of the loop, from step `first` on.

    `report` is called with the number of steps and their kernels when they have been traced; `unseen` with
    the reason if they could not be. The loop's thread calls `took` and `end`: torch.profiler must be stopped
    in the thread that started it.
    """

    def __init__(
        self,
        first: int,
        count: int,
        report: Callable[[int, list[Kernel]], None],
        unseen: Callable[[str], None],
    ) -> None:
        self._first, self._last = first, first + count
        self._report, self._unseen = report, unseen
        self._trace: Any = None
        self._thread = 0
        self._marks: list[tuple[int, int]] = []
        self._begun = 0
        """Steps that have begun since tracing did."""

    def took(self, step: int) -> None:
        """Note that the loop has taken the batch of `step`: tracing begins or ends with some."""
        if step == self._first:
            self._start()
        elif step >= self._last and self._trace is not None:
            self._stop()
        self._begun = step - self._first + 1

    def end(self) -> None:
        """Note that the run is over. Called in another thread, it gives up a trace that still goes on."""
        if self._trace is None:
            return
        if threading.get_ident() == self._thread:
            self._stop()
        else:
            self._trace = None
            self._unseen("the run ended in another thread before they had been traced")

    def _start(self) -> None:
        from torch._C._autograd import _profiler_enabled
        from torch.profiler import ProfilerActivity, profile

        if _profiler_enabled():  # a second one would end the first without a word
            self._unseen("the program has a profiler of its own running")
            return
        activities = [ProfilerActivity.CPU]
        device = device_in_use()
        if device is not None:
            other = getattr(ProfilerActivity, device.torch_name.upper(), ProfilerActivity.PrivateUse1)
            activities = list({ProfilerActivity.CPU, other})
        try:
            self._trace = profile(activities=activities)
            with _quiet_library():
                self._trace.start()
        except Exception as error:  # the driver refuses one
            self._trace = None
            self._unseen(first_line(error))
            return
        self._thread = threading.get_ident()
        for _ in range(MARKS):
            self._mark()

    def _mark(self) -> None:
        from torch.profiler import record_function

        before = monotonic_ns()
        with record_function(_MARK):
            pass
        self._marks.append((before, monotonic_ns()))

    def _stop(self) -> None:
        trace, self._trace = self._trace, None
        try:
            trace.stop()
            self._report(self._begun, _kernels(trace.events(), self._marks))
        except Exception as error:
            self._unseen(first_line(error))


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Keep the profiler's library from printing its own log: it reads its level when it is first used."""
    if "KINETO_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["KINETO_LOG_LEVEL"] = "99"
    try:
        yield
    finally:
        os.environ.pop("KINETO_LOG_LEVEL", None)


def _kernels(events: Any, marks: list[tuple[int, int]]) -> list[Kernel]:
    """Convert the trace to the host's clock: the device's kernels, or else the CPU's operators."""
    from torch._C._autograd import DeviceType

    ours = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.name == _MARK and event.device_type == DeviceType.CPU
    )
    offset_ns = _offset_ns(ours, marks)
    on_device = [
        event
        for event in events
        if event.device_type != DeviceType.CPU and not getattr(event, "is_user_annotation", False)
    ]
    chosen = on_device or [event for event in events if _is_outermost_operator(event)]
    return [
        Kernel(
            event.name,
            offset_ns + round(event.time_range.start * 1e3),
            max(0, round((event.time_range.end - event.time_range.start) * 1e3)),
            event.device_index if on_device else None,
            getattr(event, "device_resource_id", None) if on_device else None,
        )
        for event in chosen[:MOST]
    ]


def _is_outermost_operator(event: Any) -> bool:
    """Return True for an operator that no other one called; torch's annotations are not operators."""
    parent = event.cpu_parent
    return event.name.startswith(_OPERATOR) and (parent is None or not parent.name.startswith(_OPERATOR))


def _offset_ns(traced: list[tuple[float, float]], marks: list[tuple[int, int]]) -> int:
    """Return what to add to the trace's nanoseconds. Raises `ValueError` if it lacks our marks."""
    if len(traced) != len(marks):
        raise ValueError("the trace lacks the marks that were set in it")
    _, offset = min(
        (after - before, (before + after) // 2 - round((start + end) * 500))
        for (before, after), (start, end) in zip(marks, traced, strict=True)
    )
    return offset
