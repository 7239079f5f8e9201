"""Parts of the steps of a user's loop on the device: forward, backward, optimiser and collectives.

Marks are events in the current stream, made at hooks of the model, of the gradients of its output and of
every optimiser, and around torch.distributed's functions if the program calls them itself. Each part lasts
until the next mark. The communication of DistributedDataParallel's own threads shows only in its kernels.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final, NamedTuple

import torch

from pipeprof.errors import MeasureError, first_line
from pipeprof.measure.device.clock import Anchor, DeviceClock, clock_of
from pipeprof.measure.device.contract import Device
from pipeprof.measure.device.here import device_in_use
from pipeprof.measure.probe.tensors import tensors
from pipeprof.record import step_times
from pipeprof.record.step_times import PartTimes

REST: Final = ""
"""Work between the parts: the loss, the loop's own operations. It is not recorded."""
COLLECTIVES: Final = (
    "all_reduce", "all_gather", "all_gather_into_tensor", "all_to_all", "all_to_all_single", "barrier",
    "broadcast", "gather", "reduce", "reduce_scatter", "reduce_scatter_tensor", "scatter",
)  # fmt: skip
HELD_AT_MOST: Final = 64
"""Largest number of steps whose marks the device has not passed; beyond it, the first are given up."""


class _Mark(NamedTuple):
    part: str
    event: Any
    """An event of the device, or the host's time on a CPU."""


class _Step(NamedTuple):
    number: int
    anchor: Anchor | None
    marks: list[_Mark]


class StepParts:
    """Marks the parts of each step while it is installed on `model`.

    Raises `MeasureError` for anything but a module. After the first error of the driver nothing more is
    marked, and `why_not` says so; the program never sees one.
    """

    def __init__(
        self,
        model: Any,
        report: Callable[[list[PartTimes]], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise MeasureError(
                f"parts_of is a {type(model).__name__}, and no torch.nn.Module",
                "give the model that the loop calls, after torch.compile or DistributedDataParallel",
            )
        self.why_not: str | None = None
        self._report, self._now = report, clock
        self._device: Device | None = None
        self._clock: DeviceClock | None = None
        self._began = False
        self._number = -1
        self._marks: list[_Mark] = []
        self._steps: deque[_Step] = deque()
        self._undo: list[Callable[[], Any]] = []
        self._install(model)

    # -- hooks ---------------------------------------------------------------------------------------------

    def _install(self, model: torch.nn.Module) -> None:
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        handles = (
            model.register_forward_pre_hook(lambda *_: self.mark(step_times.FORWARD)),
            model.register_forward_hook(self._after_forward),
            register_optimizer_step_pre_hook(lambda *_: self.mark(step_times.OPTIMIZER)),
            register_optimizer_step_post_hook(lambda *_: self.mark(REST)),
        )
        self._undo += [handle.remove for handle in handles]
        if torch.distributed.is_available():
            for name in COLLECTIVES:
                self._wrap(name)

    def _after_forward(self, module: Any, inputs: Any, output: Any) -> None:
        self.mark(REST)
        begun = False

        def backward(gradient: Any) -> None:
            nonlocal begun
            if not begun:  # an output of several tensors has a gradient for each
                begun = True
                self.mark(step_times.BACKWARD)
                torch.autograd.Variable._execution_engine.queue_callback(lambda: self.mark(REST))

        for tensor in tensors(output):
            if tensor.requires_grad:
                tensor.register_hook(backward)  # type: ignore[no-untyped-call]

    def _wrap(self, name: str) -> None:
        plain = getattr(torch.distributed, name, None)
        if plain is None:
            return

        @functools.wraps(plain)
        def observed(*arguments: Any, **keywords: Any) -> Any:
            if keywords.get("async_op"):
                return plain(*arguments, **keywords)
            with self._collective():
                return plain(*arguments, **keywords)

        setattr(torch.distributed, name, observed)

        def undo() -> None:
            if getattr(torch.distributed, name, None) is observed:
                setattr(torch.distributed, name, plain)

        self._undo.append(undo)

    @contextmanager
    def _collective(self) -> Iterator[None]:
        before = self._marks[-1].part if self._marks else REST
        self.mark(step_times.COLLECTIVES)
        try:
            yield
        finally:
            self.mark(before)

    def remove(self) -> None:
        """Take all hooks out. Safe to call again."""
        if self._undo:
            for undo in reversed(self._undo):
                undo()
            self._undo.clear()
            self.took(self._number + 1)

    def complete(self) -> None:
        """Report what the device has passed by now. Never waits, and raises nothing."""
        try:
            self._complete()
        except Exception as error:
            self._give_up(error)

    # -- marks ---------------------------------------------------------------------------------------------

    def mark(self, part: str) -> None:
        """Note that `part` begins here. Raises nothing."""
        if self.why_not is not None:
            return
        try:
            self._marks.append(_Mark(part, self._event()))
        except _CapturedError:
            pass
        except Exception as error:
            self._give_up(error)

    def _event(self) -> Any:
        device = self._device if self._began else device_in_use()
        if device is not None and device.capturing():
            raise _CapturedError
        if not self._began:
            self._begin(device)
        if self._device is None:
            return self._now()
        event = self._device.event()
        event.record(self._device.current_stream())
        return event

    def _begin(self, device: Device | None) -> None:
        self._began, self._device = True, device
        if device is not None:
            self._clock, why = clock_of(device, self._now)
            if why is not None:
                raise RuntimeError(why)

    def took(self, number: int) -> None:
        """Note that the loop has taken the batch of step `number`: what was marked was of the one before."""
        if self._marks and self.why_not is None:
            self.mark(REST)
            anchor = None if self._clock is None else self._clock.anchor
            self._steps.append(_Step(self._number, anchor, self._marks))
        self._marks, self._number = [], number
        try:
            self._renew()
        except Exception as error:
            self._give_up(error)
        self.complete()

    def _renew(self) -> None:
        has_streams = self._device is not None and self._device.side_streams
        if self._clock is not None and has_streams and self._clock.old:
            self._clock.renew()

    def _complete(self) -> None:
        passed: list[PartTimes] = []
        while self._steps and (self._steps[0].anchor is None or self._steps[0].marks[-1].event.query()):
            passed += _times(self._steps.popleft())
        while len(self._steps) > HELD_AT_MOST:
            self._steps.popleft()
        if passed:
            self._report(passed)

    def _give_up(self, error: Exception) -> None:
        self.why_not = f"{type(error).__name__}: {first_line(error)}"
        self._marks, self._clock = [], None
        self._steps.clear()


class _CapturedError(Exception):
    """The stream is being captured into a graph."""


def _times(step: _Step) -> Iterator[PartTimes]:
    """Yield the parts of a step whose marks have passed."""
    times = [step.anchor.at(mark.event) if step.anchor is not None else mark.event for mark in step.marks]
    for mark, (start, end) in zip(step.marks[:-1], pairwise(times), strict=True):
        if mark.part != REST:
            yield PartTimes(step.number, mark.part, start, max(start, end))
