"""Receives what the user marks in the loop's body, between two batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeprof.measure.probe.spans import Sink, Totals, activate, active
from pipeprof.measure.session.steps.step import Step
from pipeprof.record.columns import by_name


class LoopSink(Sink):
    """The sink of the thread that runs the loop, while it makes no batch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Step, dict[str, Totals]]] = []
        self.was_used = False
        """True if the user has marked anything in the loop's body."""
        self._step: Step | None = None
        self._outer: LoopSink | None = None
        """The sink of the loop in which this one runs."""

    def took(self, step: Step, wait_ns: int) -> None:
        """Note that a batch was taken: what was marked until now belongs to the step before it."""
        if self.totals and self._step is not None:
            self.done.append((self._step, self.totals))
            self.totals = {}
            self.was_used = True
        self._step = step
        now = active()
        if now is self:
            self.inner_ns += wait_ns  # a stage around the wait does not own it
        elif now is None or isinstance(now, LoopSink):  # another run's, as of a validation in the loop
            if now is not None and now._outer is not self:
                self._outer = now
            activate(self)

    def left(self) -> None:
        """Note that the loop is over; the one around it goes on."""
        outer, self._outer = self._outer, None
        if outer is not None and not outer.is_over and active() is self:
            activate(outer)

    def end(self) -> None:
        """Note that the run is over."""
        self.left()
        if self._step is not None and self.totals:
            self.done.append((self._step, self.totals))
        self.totals, self._step, self.is_over = {}, None, True
        if active() is self:  # else another thread ends the run: the loop's finds out by itself
            activate(None)

    def take(self) -> list[tuple[Step, dict[str, Totals]]]:
        """Return what was marked in the steps that have ended since the last time."""
        done, self.done = self.done, []
        return done


def stage_columns(marked: Iterable[tuple[Step, dict[str, Totals]]]) -> dict[str, Any]:
    """Return columns of `stages`: scope 1, of the batch that was taken before."""
    rows = [
        (step.loader, step.epoch, step.seq, 1, name, t.wall_ns, t.count)
        for step, totals in marked
        for name, t in totals.items()
    ]
    return by_name(rows, ("loader", "epoch", "seq", "scope", "stage", "wall_ns", "count"))
