"""An emulated accelerator: a stream on a virtual clock whose steps take a model's time, without a thread.

The device's times are computed, not slept: a step that is launched occupies the device from the moment it
could have begun. The host sleeps only where a real one would stand: behind a full queue, behind a pageable
copy, or for each step if the loop synchronises. What the host oversleeps is hidden by the queue, so that
utilisation and starved time are those of the device's own clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pipeprof.devices import AcceleratorModel
from pipeprof.measure.probe.tensors import samples, size_bytes
from pipeprof.record.meta import AcceleratorMeta, ModelMeta
from pipeprof.record.step_times import PartTimes, StepTimes
from pipeprof.units import NS_PER_S

SPIN_NS: Final = 100_000
"""The end of a wait is spun: `time.sleep` alone is about 100 µs late."""


def sleep_until(deadline_ns: int) -> None:
    """Return at `deadline_ns` of `time.monotonic_ns`, within about a microsecond if a core is free."""
    ahead = deadline_ns - time.monotonic_ns()
    if ahead > SPIN_NS:
        time.sleep((ahead - SPIN_NS) / NS_PER_S)
    while time.monotonic_ns() < deadline_ns:
        pass


class EmulatedAccelerator:
    """A stream that computes one step after the other, and a link that copies to it.

    A pageable copy goes through the stream and blocks the host until it has arrived, as `tensor.to(device)`
    does (torch synchronises the stream after it). A pinned copy is queued in the stream and the host goes on.
    `prefetch_to_device` copies on a stream of its own, alongside the computation of the step before. `pinned`
    says which of the two the loop's batches are: without a CUDA device torch can pin nothing. `clock` and
    `sleep` (until a time of that clock) are handed in by tests.
    """

    kind = "emulated"
    emulated = True
    pins = False
    why_untimed: str | None = None

    def __init__(
        self,
        model: AcceleratorModel,
        *,
        pinned: bool = False,
        sync: bool = False,
        prefetch_to_device: bool = False,
        seed: int = 0,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[int], None] = sleep_until,
    ) -> None:
        self.model = model
        self._pinned, self._sync, self._side_stream = pinned, sync, prefetch_to_device
        self._clock, self._sleep = clock, sleep
        self._deviates = np.random.default_rng(seed)
        self._compute_end_ns = self._copy_end_ns = 0
        self._requested_ns: int | None = None
        self._running: deque[int] = deque()
        self._launched: deque[StepTimes] = deque()

    def request(self, step: int) -> None:
        """Note when the device begins to wait for the batch: now, or when its queue has run dry.

        A request that ended the epoch stands until the next epoch's first batch: its start-up is a wait too.
        """
        if self._requested_ns is None:
            self._requested_ns = max(self._clock(), self._compute_end_ns)

    def submit(self, step: int, batch: Any) -> None:
        """Reserve copy and computation on the device's clock; wait where a host would."""
        self._launched.append(self._reserve(step, self._clock(), samples(batch), size_bytes(batch)))
        self._running.append(self._compute_end_ns)
        if not self._pinned:
            self._wait_until(self._copy_end_ns)
        if self._sync:
            self._wait_until(self._compute_end_ns)
        while len(self._running) > self.model.queue_depth:
            self._wait_until(self._running.popleft())

    def _reserve(self, step: int, now: int, count: int, size: int) -> StepTimes:
        since = now if self._requested_ns is None else self._requested_ns
        self._requested_ns = None
        starved = max(0, max(now, self._compute_end_ns) - since)
        stream_free = 0 if self._side_stream else self._compute_end_ns
        copy_start = max(now, self._copy_end_ns, stream_free)
        self._copy_end_ns = copy_start + self.model.link.copy_ns(size, self._pinned)
        compute_start = max(self._copy_end_ns, self._compute_end_ns)
        deviate = float(self._deviates.standard_normal()) if self.model.step_stddev_ns else 0.0
        self._compute_end_ns = compute_start + self.model.step_time_ns(count, deviate)
        return StepTimes(step, copy_start, self._copy_end_ns, compute_start, self._compute_end_ns, starved)

    def _wait_until(self, time_ns: int) -> None:
        if time_ns > self._clock():
            self._sleep(time_ns)

    def finished(self) -> list[StepTimes]:
        """Return the steps that have ended by now."""
        now = self._clock()
        done = []
        while self._launched and (self._launched[0].compute_end_ns or 0) <= now:
            done.append(self._launched.popleft())
        return done

    def parts(self) -> list[PartTimes]:
        """Return none: an emulated step has no parts."""
        return []

    def synchronize(self) -> None:
        """Sleep until the last step has ended."""
        self._wait_until(self._compute_end_ns)

    def describe(self) -> AcceleratorMeta:
        """Return the figures of the model and of its link, with their sources."""
        model = self.model
        return AcceleratorMeta(
            kind=self.kind,
            name=model.name,
            emulated=True,
            queue_depth=model.queue_depth,
            synchronises=self._sync,
            copies_overlap=self._side_stream,
            step_ns=model.step_ns,
            step_stddev_ns=model.step_stddev_ns,
            step_batch_size=model.batch_size,
            pinned=self._pinned,
            link=model.link,
            source=model.source,
        )

    def describe_model(self) -> ModelMeta:
        """Return nothing: no network is trained."""
        return ModelMeta()
