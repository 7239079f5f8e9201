"""Walks the pipeline's graph forwards: the run that other knobs would have given.

The order of events is `pipeline.predecessors`; here each event gets its time from demands. CPU time shares
the cores (`clock.Clock`), requests go through the storage device's own cost model in virtual time, and the
accelerator is a queue behind its link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeprof.pipeline import Ints
from pipeprof.simulate.clock import Clock, Meeting
from pipeprof.simulate.device import Device, node_share
from pipeprof.simulate.draw import Draw
from pipeprof.simulate.knobs import Knobs

CHUNKS: Final = 8
"""Pieces that a batch is made in where several workers share a disk, so that the reading of one overlaps the
decoding of another. A piece is like one slow sample: the ratio of the two times decides, not their size."""

EVENTS: Final = (
    "dispatch",
    "start",
    "finish",
    "available",
    "request",
    "take",
    "copy_start",
    "copy_end",
    "launch",
    "compute_start",
    "compute_end",
)


@dataclass(frozen=True, slots=True)
class Walked:
    """One rank's run in virtual time: an entry a batch, in the order of takes. Times in ns from the start."""

    times: dict[str, Ints]
    seq: Ints
    worker: Ints
    epoch: Ints
    reading_ns: Ints
    """Each batch's waiting for the storage device."""


@dataclass(slots=True)
class _Job:
    """One batch being made."""

    k: int
    worker: int
    left: int
    """Pieces still to be made."""


class Rank:
    """One training process: its loop, its workers, its accelerator."""

    def __init__(
        self,
        clock: Clock,
        device: Device,
        knobs: Knobs,
        draw: Draw,
        number: int,
        on_done: Callable[[], None],
        meeting: Meeting,
    ) -> None:
        self._clock, self._device, self._knobs, self._draw = clock, device, knobs, draw
        self._on_done, self._meeting = on_done, meeting
        self._readers = number * max(1, knobs.workers)
        self.steps = draw.steps
        length = len(draw.cpu)
        self.times = {name: [0.0] * length for name in EVENTS}
        self.worker = [-1] * length
        self._reading = [0.0] * length
        self.order: list[int] = []
        self.done = False
        self._pieces = _pieces(knobs)
        self._queues: list[deque[int]] = [deque() for _ in range(knobs.workers)]
        self._busy = [False] * knobs.workers
        self._held = [0] * knobs.workers
        self._turn = 0
        self._next = 0
        self._epoch_end = 0
        self._arrived: deque[int] = deque()
        self._here = bytearray(length)
        self._waiting = False
        self._asked_at = 0.0
        self._pin_free = 0.0
        self._compute_free = self._copy_free = 0.0
        self._computing = 0

    def begin_epoch(self, first: int) -> None:
        """iter(loader): start the workers unless they persist, hand out the first batches, ask for one."""
        self._epoch_end = min(len(self.worker), first + self._draw.batches_per_epoch)
        self._next, self._turn = first, 0
        fresh = first == 0 or not self._knobs.persistent_workers
        start_up = self._draw.start_up
        self._clock.work(start_up.host_ns * self._knobs.workers * fresh, self._workers_ready, (first, fresh))

    def _workers_ready(self, argument: Any) -> None:
        first, fresh = argument
        self._busy = [True] * self._knobs.workers  # starting
        for _ in range(self._knobs.outstanding):
            self._dispatch()
        boot = self._draw.start_up.boot_ns if fresh else 0.0
        for worker in range(self._knobs.workers):
            self._clock.work(boot, self._next_batch, worker)
        self._request(first)

    # the loader

    def _dispatch(self) -> None:
        if self._next >= self._epoch_end:
            return
        k, self._next = self._next, self._next + 1
        worker = self._choose()
        self.times["dispatch"][k] = self._clock.now
        self.worker[k] = worker
        self._held[worker] += 1
        self._queues[worker].append(k)
        if not self._busy[worker]:
            self._busy[worker] = True
            self._next_batch(worker)

    def _choose(self) -> int:
        """In turn; out of order, the next one in turn that has room (as torch's `_try_put_index`)."""
        workers = self._knobs.workers
        for _ in range(workers):
            worker, self._turn = self._turn, (self._turn + 1) % workers
            if self._knobs.in_order or self._held[worker] < self._knobs.prefetch:
                return worker
        return worker

    def _next_batch(self, worker: int) -> None:
        if not self._queues[worker]:
            self._busy[worker] = False
            return
        self._clock.work(self._draw.handover[self._queues[worker][0]], self._start, worker)

    def _start(self, worker: int) -> None:
        k = self._queues[worker].popleft()
        self._make(k, worker)

    def _make(self, k: int, worker: int) -> None:
        self.times["start"][k] = self._clock.now
        self._read(_Job(k, worker, self._pieces))

    def _read(self, job: _Job) -> None:
        draw, clock = self._draw, self._clock
        k, pieces = job.k, self._pieces
        requests = draw.requests[k] / pieces
        if requests == 0.0:
            recorded = draw.reading[k] / pieces
            if recorded == 0.0:
                return self._prepare(job)
            self._reading[k] += recorded
            clock.at(clock.now + recorded, self._prepare, job)
            return None
        # the CPU part of a read passes while the device works
        arrival = clock.now - min(draw.read_cpu[k] / pieces, clock.now)
        reader = self._readers + max(0, job.worker)
        end = self._device.read(arrival, requests, draw.read_bytes[k] / pieces, reader, draw.onwards)
        if end > clock.now:
            self._reading[k] += end - clock.now
            clock.at(end, self._prepare, job)
        else:
            self._prepare(job)
        return None

    def _prepare(self, job: _Job) -> None:
        draw, k = self._draw, job.k
        self._clock.work((draw.cpu[k] + draw.read_cpu[k]) / self._pieces, self._piece_done, job)

    def _piece_done(self, job: _Job) -> None:
        job.left -= 1
        if job.left:
            self._read(job)
        elif (away := self._draw.blocked[job.k] + self._draw.waking[job.k]) > 0:
            self._clock.at(self._clock.now + away, self._finish, job)
        else:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        k, clock, draw = job.k, self._clock, self._draw
        self.times["finish"][k] = clock.now
        if job.worker < 0:
            self.times["available"][k] = clock.now
            clock.work(draw.receive[k], self._take, k)
            return
        self._held[job.worker] -= 1
        if draw.helper[k] > 0:
            clock.work(draw.helper[k], _nothing)
        # time and no work: see `elapsed.HOST`
        clock.at(clock.now + draw.transfer[k], self._arrive, k)
        self._next_batch(job.worker)

    def _arrive(self, k: int) -> None:
        if not self._knobs.pin_memory:
            self._available(k)
            return
        self._pin_free = max(self._pin_free, self._clock.now) + self._draw.pin[k]
        self._clock.at(self._pin_free, self._available, k)

    def _available(self, k: int) -> None:
        self.times["available"][k] = self._clock.now
        self._here[k] = 1
        self._arrived.append(k)
        if self._waiting:
            self._receive()

    # the loop

    def _request(self, position: int) -> None:
        clock = self._clock
        if self._knobs.workers == 0:
            self.times["request"][position] = self.times["dispatch"][position] = clock.now
            self.order.append(position)
            self._make(position, -1)
            return
        self._waiting = True
        self._asked_at = clock.now
        self._receive()

    def _receive(self) -> None:
        if self._knobs.in_order:
            k = len(self.order)
            if not self._here[k]:
                return
        else:
            if not self._arrived:
                return
            k = self._arrived.popleft()
        self._waiting = False
        self.order.append(k)
        self.times["request"][k] = self._asked_at
        self._clock.work(self._draw.receive[k], self._take, k)

    def _take(self, k: int) -> None:
        clock, times, draw = self._clock, self.times, self._draw
        times["take"][k] = clock.now
        if self._knobs.workers:
            self._dispatch()
        # one stream copies and computes in turn, unless the copies have one of their own
        stream_free = 0.0 if self._knobs.prefetch_to_device else self._compute_free
        begin = times["copy_start"][k] = max(clock.now, self._copy_free, stream_free)
        self._copy_free = times["copy_end"][k] = begin + draw.copy[k]
        clock.at(clock.now if self._knobs.pin_memory else self._copy_free, self._submit, k)

    def _submit(self, k: int) -> None:
        self._clock.work(self._draw.submit[k], self._launched, k)

    def _launched(self, k: int) -> None:
        if self._draw.compute_threads:
            self._compute_on_cores(k)
        else:
            self._compute_on_device(k)

    def _compute_on_cores(self, k: int) -> None:
        """As many threads as cores, and the loop goes on when the last of them is done."""
        self.times["compute_start"][k] = self._clock.now
        self._computing = self._draw.compute_threads
        for _ in range(self._computing):
            self._clock.work(self._draw.compute[k], self._thread_done, k)

    def _thread_done(self, k: int) -> None:
        self._computing -= 1
        if self._computing == 0:
            self._compute_free = self.times["compute_end"][k] = self._clock.now
            self._go_on(k)

    def _compute_on_device(self, k: int) -> None:
        times, knobs, draw = self.times, self._knobs, self._draw
        position = len(self.order) - 1
        begin = times["compute_start"][k] = max(times["copy_end"][k], self._compute_free, 0.0)
        self._compute_free = times["compute_end"][k] = begin + draw.compute[k]
        behind = 0 if knobs.synchronises else knobs.queue_depth
        free = times["compute_end"][self.order[position - behind]] if position >= behind else 0.0
        self._clock.at(free, self._go_on, k)

    def _go_on(self, k: int) -> None:
        self.times["launch"][k] = self._clock.now
        if self._knobs.ranks > 1:
            self._clock.work(self._draw.meeting_ns / 2, self._meet, k)
        elif (met := self._draw.met[k]) > 0:
            self._clock.at(self._clock.now + met, self._onwards, k)
        else:
            self._onwards(k)

    def _meet(self, k: int) -> None:
        self._meeting.come(self._met, k)

    def _met(self, k: int) -> None:
        self._clock.work(self._draw.meeting_ns / 2, self._onwards, k)

    def _onwards(self, k: int) -> None:
        position = len(self.order)
        if position >= self.steps:
            self.done = True
            self._on_done()
        elif position == self._epoch_end:
            self._clock.at(self._clock.now + self._draw.start_up.shutdown_ns, self.begin_epoch, position)
        else:
            self._clock.work(self._draw.loop[k], self._request, position)

    def walked(self) -> Walked:
        """The run as arrays, in the order of takes."""
        order = np.asarray(self.order, dtype=np.int64)
        return Walked(
            times={name: np.rint(np.asarray(t)[order]).astype(np.int64) for name, t in self.times.items()},
            seq=order % self._draw.batches_per_epoch,
            worker=np.asarray(self.worker, dtype=np.int64)[order],
            epoch=order // self._draw.batches_per_epoch,
            reading_ns=np.rint(np.asarray(self._reading)[order]).astype(np.int64),
        )


def _nothing(_: Any) -> None:
    """A thread's CPU time that no event waits for."""


def _pieces(knobs: Knobs) -> int:
    """One piece a batch where nobody's reading could overlap with another's decoding."""
    shares = max(1, knobs.workers) * knobs.ranks > 1 and knobs.storage.kind != "memory"
    return min(CHUNKS, knobs.batch_size) if shares else 1


def walk(knobs: Knobs, draws: list[Draw]) -> list[Walked]:
    """Replay the drawn demands under `knobs`, one draw a rank of the node."""
    clock = Clock(knobs.cores, knobs.neighbours)
    device = Device(node_share(knobs.storage, knobs.nodes), len(draws) * max(1, knobs.workers))

    def stop_when_all_are_done() -> None:
        clock.stopped = all(rank.done for rank in ranks)

    meeting = Meeting(clock, len(draws))
    ranks = [
        Rank(clock, device, knobs, one, number, stop_when_all_are_done, meeting)
        for number, one in enumerate(draws)
    ]
    for rank in ranks:
        rank.begin_epoch(0)
    clock.run()
    assert clock.stopped, "every batch is taken"
    return [rank.walked() for rank in ranks]
