"""A step of the loop, until everything about it is known."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final, Protocol

from pipeprof.measure.probe.handover import Way
from pipeprof.measure.session.steps.finished import Finished
from pipeprof.record.schema import MISSING, TABLES
from pipeprof.record.step_times import StepTimes


class StepSource(Protocol):
    """Source of a step's batch: the observation of an iterator."""

    @property
    def loader_number(self) -> int:
        """Return the number of the loader in `run.json`."""
        ...

    @property
    def epoch(self) -> int:
        """Return the epoch of the batches that it gives now."""
        ...

    @property
    def finished(self) -> Mapping[int, Finished]:
        """Return by epoch the batches that were finished and are not yet known to be taken."""
        ...

    def way_of(self, epoch: int, seq: int) -> Way:
        """Return, and forget, the times of a batch's way to this process."""
        ...


class Step:
    """Step of the loop. Its attributes are the columns of `steps`; `MISSING` until known."""

    samples: int = MISSING
    pickled_ns: int = MISSING
    sent_ns: int = MISSING
    sent_bytes: int = MISSING
    state_bytes: int = MISSING
    receive_start_ns: int = MISSING
    received_ns: int = MISSING
    arrival_ns: int = MISSING
    launch_ns: int = MISSING
    copy_start_ns: int = MISSING
    copy_end_ns: int = MISSING
    compute_start_ns: int = MISSING
    compute_end_ns: int = MISSING
    device_wait_ns: int = MISSING
    unprobed: int = MISSING
    thread_cpu_ns: int = MISSING
    own_ns: int = MISSING
    next_cpu_ns: int = MISSING

    def __init__(
        self, step: int, source: StepSource, order: int, key: tuple[int, int] | None, warmup: bool,
        request_ns: int, take_ns: int, ready_batches: int | None, complete: bool,
    ) -> None:  # fmt: skip
        self.step, self.source, self.key, self.warmup = step, source, key, warmup
        self.loader = source.loader_number
        self.epoch, self.seq = (source.epoch, order) if key is None else key
        self.request_ns, self.take_ns = request_ns, take_ns
        self.ready_batches = MISSING if ready_batches is None else ready_batches
        self.complete = complete
        """True if nothing more will be known of it."""

    def add_device_times(self, times: StepTimes) -> None:
        """Enter what the device has measured."""
        for name, value in times._asdict().items():
            if value is not None:
                setattr(self, name, value)

    def add_batch(self) -> None:
        """Enter what its worker has recorded of the batch that the step took."""
        finished = self.source.finished.get(self.epoch)
        if finished is not None:
            made = finished.take_first() if self.key is None else finished.take(self.seq)
            if made is not None:
                self.seq, self.samples, finish_ns = made
                if finish_ns > self.request_ns:  # one that lay in the queue was not seen to arrive
                    self.arrival_ns = self.take_ns
        (
            self.pickled_ns, self.sent_ns, self.sent_bytes, self.state_bytes,
            self.receive_start_ns, self.received_ns,
        ) = self.source.way_of(self.epoch, self.seq)  # fmt: skip


COLUMNS: Final = tuple(TABLES["steps"].names)
row_of: Final = attrgetter(*COLUMNS)
"""Return the columns of a step, in the order of `COLUMNS`."""
