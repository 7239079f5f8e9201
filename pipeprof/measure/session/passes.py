"""Passes over loaders: the events of each, however the loop leaves it."""

from __future__ import annotations

from typing import Protocol

from pipeprof.record.schema import EpochEnd


class RecordEvent(Protocol):
    """Records something that happened once, as `Pending.event` does."""

    def __call__(
        self,
        kind: str,
        *,
        loader: int | None = None,
        epoch: int | None = None,
        worker: int | None = None,
        detail: str | None = None,
        time_ns: int | None = None,
    ) -> None:
        """Record an event of a kind of `record.schema.EVENTS`, now or at `time_ns`."""
        ...


class Pass:
    """Pass of the program over one loader. It may be left in the middle of anything, in a finalizer."""

    def __init__(self, record: RecordEvent, loader: int, epoch: int, start_ns: int) -> None:
        self.is_open = True
        self._record, self._loader, self._epoch = record, loader, epoch
        record("epoch_start", loader=loader, epoch=epoch, time_ns=start_ns)

    def exhaust(self, request_ns: int) -> None:
        """End the pass now: the request at `request_ns` has found no batch left."""
        if self.is_open:
            self._record("last_request", loader=self._loader, epoch=self._epoch, time_ns=request_ns)
            self._end("exhausted")

    def drop(self) -> None:
        """End the pass now: its iterator is let go. Nothing if it has ended already."""
        if self.is_open:
            self._end("dropped")

    def close(self) -> None:
        """Record no end: the loop has left at some time before."""
        self.is_open = False

    def _end(self, how: EpochEnd) -> None:
        self.is_open = False
        self._record("epoch_end", loader=self._loader, epoch=self._epoch, detail=how)
