"""Fires the pipeline's graph forwards: the run that other knobs would have given.

`firing.Firing` lets each event happen when the last of its predecessors in `graph.EDGES` has; here are the
activities that pass before it. CPU time shares the cores (`clock.VirtualClock`), requests go through the
storage device's own cost model in virtual time, and the accelerator is a queue behind its link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from pipeprof.graph import OF_LOADER, Event, Shape
from pipeprof.simulate.clock import Meeting, VirtualClock
from pipeprof.simulate.device import Read, VirtualStorage, node_share
from pipeprof.simulate.firing import Firing
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.sampling import Draw
from pipeprof.timeline import Ints

CHUNKS: Final = 8
"""Pieces that a batch is made in if several workers share a disk, so that the reading of one overlaps the
decoding of another. A piece is like one slow sample: the ratio of the two times decides, not their size."""


_LATEST_NS: Final = 2**62
"""Largest time of the simulated clock: 146 years."""


@dataclass(frozen=True, slots=True)
class Walked:
    """One rank's run in virtual time: an entry a batch, in the order of takes. Times in ns from the start."""

    times: dict[Event, Ints]
    seq: Ints
    worker: Ints
    epoch: Ints
    reading_ns: Ints
    """Each batch's waiting for the storage device."""


@dataclass(slots=True)
class _Job:
    """One batch being made, in pieces that are alike."""

    k: int
    left: int
    """Pieces still to be made."""
    read: Read | None
    """Reading of a piece; None if nothing is read."""
    read_cpu_ns: float
    cpu_ns: float
    """CPU time of a piece, that of its reads included."""


class TrainingProcess:
    """One rank: the activities of its loop, its workers and its accelerator.

    Events of the loader are of batch `k`, in the order of dispatch; events of the loop of step `p`. `since`
    is when the last predecessor had happened; an event that waits for no work of the host may be known ahead.
    """

    def __init__(
        self,
        clock: VirtualClock,
        device: VirtualStorage,
        knobs: Knobs,
        draw: Draw,
        number: int,
        on_done: Callable[[], None],
        meeting: Meeting,
    ) -> None:
        self._clock, self._device, self._knobs, self._draw = clock, device, knobs, draw
        self._on_done, self._meeting = on_done, meeting
        self._first_reader = number * max(1, knobs.workers)
        length = len(draw.cpu)
        self._pieces = _pieces(knobs)
        self._workers = _Workers(knobs, length)
        self._epoch_end = self._arrived = self._computing = 0
        self._last_sent = self._pinned = -1
        self._pinned_ns = 0.0
        self._behind: dict[int, int] = {}
        """Batches that the pin thread comes to when another one is pinned, by that one."""
        self._reading = [0.0] * length
        self.done = False
        self.worker = [-1] * length
        self.order = list(range(length)) if knobs.in_order or not knobs.workers else [-1] * length
        """Batch of each step."""
        shape = shape_of(knobs, draw)
        self._pins = pins = shape.pin_memory
        self._ahead = knobs.in_order and not pins
        """It does not matter when exactly a batch comes, unless its worker's lock is waited for."""
        begin: dict[Event, Callable[[int, float], None]] = {
            Event.DISPATCH: self._dispatch,
            Event.START: self._start,
            Event.FINISH: self._make,
            Event.SENT: self._send,
            Event.AVAILABLE: self._pin if pins else self._arrive,
            Event.REQUEST: self._go_on,
            Event.TAKE: self._receive,
            Event.COPY: self._copy,
            Event.LAUNCH: self._submit,
            Event.COMPUTE: self._compute_on_cores if draw.compute_threads else self._compute,
        }
        self._graph = Firing(shape, length, begin)
        self._happen = self._graph.happen

    # the loader

    def begin_epoch(self, first: int) -> None:
        """Do what iter(loader) does: start the workers unless they persist, hand out the first batches, ask
        for one."""
        self._epoch_end = min(len(self.worker), first + self._draw.batches_per_epoch)
        fresh = first == 0 or not self._knobs.persistent_workers
        start_up = self._draw.start_up
        self._clock.work(start_up.host_ns * self._knobs.workers * fresh, self._iterate, (first, fresh))

    def _iterate(self, argument: Any) -> None:
        first, fresh = argument
        clock, now = self._clock, self._clock.now
        starting = self._workers.restart()
        for k in range(first, min(self._epoch_end, first + self._knobs.outstanding)):
            self._dispatch(k, now)
        boot = self._draw.start_up.boot_ns if fresh else 0.0
        for before in starting:
            clock.work(boot, self._free, before)
        self._happen(Event.REQUEST, first, now)

    def _dispatch(self, k: int, since: float) -> None:
        if k >= self._epoch_end:  # of an epoch that has not begun
            return
        if not self._knobs.workers:
            self._happen(Event.DISPATCH, k, since)
            return
        worker, idle = self._workers.choose(k)
        self.worker[k] = worker
        self._happen(Event.DISPATCH, k, since)
        if idle:
            self._graph.arrive(Event.START, k, since)

    def _start(self, k: int, _: float) -> None:
        if (away := self._draw.handover_away[k]) > 0:
            self._clock.at(self._clock.now + away, self._turn, k)
        else:
            self._turn(k)

    def _turn(self, k: int) -> None:
        self._clock.work(self._draw.handover[k], self._started, k)

    def _started(self, k: int) -> None:
        self._happen(Event.START, k, self._clock.now)

    def _make(self, k: int, _: float) -> None:
        draw, pieces, read = self._draw, self._pieces, None
        requests, read_bytes = draw.requests[k] / pieces, draw.read_bytes[k] / pieces
        if requests or read_bytes:
            reader = self._first_reader + max(0, self.worker[k])
            read = self._device.reads(requests, read_bytes, reader, draw.onwards)
        read_cpu_ns = draw.read_cpu[k] / pieces
        self._read(_Job(k, pieces, read, read_cpu_ns, (draw.cpu[k] + draw.read_cpu[k]) / pieces))

    def _read(self, job: _Job) -> None:
        clock = self._clock
        if job.read is not None:
            # the CPU part of a read passes while the device works
            now, read_cpu_ns = clock.now, job.read_cpu_ns
            end = job.read(int(now - read_cpu_ns) if read_cpu_ns < now else 0)
            if end > now:
                self._reading[job.k] += end - now
                clock.work_from(end, job.cpu_ns, self._piece_done, job)
                return
        clock.work(job.cpu_ns, self._piece_done, job)

    def _piece_done(self, job: _Job) -> None:
        job.left -= 1
        if job.left:
            self._read(job)
        elif (away := self._draw.away[job.k] + self._draw.waking[job.k]) > 0:
            self._clock.at(self._clock.now + away, self._finish, job.k)
        else:
            self._finish(job.k)

    def _finish(self, k: int) -> None:
        self._happen(Event.FINISH, k, self._clock.now)
        if self._knobs.workers:
            if (earlier := self._workers.unlocked(k)) is not None:
                self._graph.arrive(Event.RECEIVED, earlier, self._clock.now)
            self._workers.finished(self.worker[k])
            if (helper := self._draw.helper[k]) > 0:
                self._clock.work(helper, _nothing)
            self._free(k)

    def _free(self, before: int) -> None:
        """Let the worker that has made, or started up as, `before` turn to what it has next."""
        following = self._workers.free(before)
        if following is not None:
            self._graph.arrive(Event.START, following, self._clock.now)

    def _send(self, k: int, since: float) -> None:
        """Let time pass without work: see `Activities.on_cores`."""
        sent = since + self._draw.transfer[k]
        if self._ahead and not self._draw.locked[k]:
            self._happen(Event.SENT, k, sent)
            self._graph.arrive(Event.RECEIVED, k, sent)
        else:
            self._clock.at(sent, self._sent, k)

    def _sent(self, k: int) -> None:
        now = self._clock.now
        self._happen(Event.SENT, k, now)
        # it is received when the native call is over that holds the lock of its worker
        if not (self._draw.locked[k] and self._workers.lock(k)):
            self._graph.arrive(Event.RECEIVED, k, now)
        if self._pins:  # one batch after the other, as they come
            before, self._last_sent = self._last_sent, k
            if self._pinned == before:
                self._graph.arrive(Event.RECEIVED, k, self._pinned_ns)
            else:
                self._behind[before] = k

    def _pin(self, k: int, since: float) -> None:
        self._pinned, self._pinned_ns = k, since + self._draw.pin[k]
        self._arrive(k, self._pinned_ns)
        if (following := self._behind.pop(k, None)) is not None:
            self._graph.arrive(Event.RECEIVED, following, self._pinned_ns)

    def _arrive(self, k: int, since: float) -> None:
        self._happen(Event.AVAILABLE, k, since)
        if not self._knobs.in_order and self._knobs.workers:
            step, self._arrived = self._arrived, self._arrived + 1
            self.order[step] = k
            self._graph.arrive(Event.TAKE, step, since)

    # the loop

    def _receive(self, p: int, since: float) -> None:
        if since > self._clock.now:
            self._clock.at(since, self._receive_now, p)
        else:
            self._receive_now(p)

    def _receive_now(self, p: int) -> None:
        if (away := self._draw.receive_away[self.order[p]]) > 0:
            self._clock.at(self._clock.now + away, self._unpack, p)
        else:
            self._unpack(p)

    def _unpack(self, p: int) -> None:
        self._clock.work(self._draw.receive[self.order[p]], self._taken, p)

    def _taken(self, p: int) -> None:
        if (recording := self._draw.recording[self.order[p]]) > 0:
            self._clock.work(recording, _nothing)
        self._happen(Event.TAKE, p, self._clock.now)

    def _copy(self, p: int, since: float) -> None:
        self._happen(Event.COPY, p, since + self._draw.copy[self.order[p]])

    def _submit(self, p: int, since: float) -> None:
        if since > self._clock.now:
            self._clock.at(since, self._submit_now, p)
        else:
            self._submit_now(p)

    def _submit_now(self, p: int) -> None:
        self._clock.work(self._draw.submit[self.order[p]], self._launched, p)

    def _launched(self, p: int) -> None:
        self._happen(Event.LAUNCH, p, self._clock.now)

    def _compute(self, p: int, since: float) -> None:
        compute_ns, cpu_ns = self._draw.compute[self.order[p]], self._draw.body_cpu[self.order[p]]
        if cpu_ns > 0:  # the host's own part of a step that no device was timed for
            begun = max(since + compute_ns - cpu_ns, self._clock.now)
            self._clock.work_from(begun, cpu_ns, self._computed, p)
        else:
            self._happen(Event.COMPUTE, p, since + compute_ns)

    def _computed(self, p: int) -> None:
        self._happen(Event.COMPUTE, p, self._clock.now)

    def _compute_on_cores(self, p: int, since: float) -> None:
        self._clock.at(since, self._start_threads, p)

    def _start_threads(self, p: int) -> None:
        """Start as many threads as cores; the step has ended when the last of them is done."""
        self._computing = self._draw.compute_threads
        for _ in range(self._computing):
            self._clock.work(self._draw.compute[self.order[p]], self._thread_done, p)

    def _thread_done(self, p: int) -> None:
        self._computing -= 1
        if self._computing == 0:
            self._happen(Event.COMPUTE, p, self._clock.now)

    def _go_on(self, p: int, since: float) -> None:
        """Go on from the end of step p - 1 to the next request: meet the other ranks, and the loop's own
        Python."""
        if self._knobs.ranks > 1:
            self._clock.work(self._draw.meeting_ns / 2, self._meet, p)
        elif (met := self._draw.met[self.order[p - 1]]) > 0:
            self._clock.at(since + met, self._onwards, p)
        else:
            self._onwards(p)

    def _meet(self, p: int) -> None:
        self._meeting.come(self._met, p)

    def _met(self, p: int) -> None:
        self._clock.work(self._draw.meeting_ns / 2, self._onwards, p)

    def _onwards(self, p: int) -> None:
        if p >= self._draw.steps:
            self.done = True
            self._on_done()
        elif p == self._epoch_end:
            self._clock.at(self._clock.now + self._draw.start_up.shutdown_ns, self.begin_epoch, p)
        else:
            self._clock.work(self._draw.loop[self.order[p - 1]], self._request, p)

    def _request(self, p: int) -> None:
        self._happen(Event.REQUEST, p, self._clock.now)

    def walked(self) -> Walked:
        """Return the run as arrays, in the order of takes."""
        steps = self._draw.steps
        order = np.asarray(self.order[:steps], dtype=np.int64)
        times = {}
        for event, at in self._graph.times.items():
            in_order = np.asarray(at)
            in_order = in_order[order] if event in OF_LOADER else in_order[:steps]
            # demands of a foreign record may be absurd, and their sums beyond what an integer holds
            times[event] = np.rint(np.nan_to_num(in_order).clip(-_LATEST_NS, _LATEST_NS)).astype(np.int64)
        return Walked(
            times=times,
            seq=order % self._draw.batches_per_epoch,
            worker=np.asarray(self.worker, dtype=np.int64)[order],
            epoch=order // self._draw.batches_per_epoch,
            reading_ns=np.rint(np.asarray(self._reading)[order]).astype(np.int64),
        )


class _Workers:
    """The workers' turns: who makes which batch, as torch's `_try_put_index` hands them out.

    A worker that starts up counts as one that makes a batch, numbered after all others.
    """

    def __init__(self, knobs: Knobs, batches: int) -> None:
        self._knobs, self._batches = knobs, batches
        self._turn = 0
        self._held: list[int] = []
        self._last: list[int] = []
        """The last batch that each worker was given."""
        self._made = bytearray(batches + knobs.workers)
        self._following: dict[int, int] = {}
        """By batch: the one that the same worker makes after it."""
        self._locked: dict[int, int] = {}
        """Batches that are received when another one is made, by that one."""

    def restart(self) -> list[int]:
        """Start an epoch; return what each worker begins with."""
        workers = self._knobs.workers
        self._turn, self._held = 0, [0] * workers
        self._last = [self._batches + worker for worker in range(workers)]
        self._made[self._batches :] = bytes(workers)
        for starting in self._last:
            self._following.pop(starting, None)
        return self._last.copy()

    def choose(self, k: int) -> tuple[int, bool]:
        """Return the worker that gets batch `k`, and whether it has nothing else to make before.

        In turn; out of order, the next one in turn that has room.
        """
        workers = self._knobs.workers
        for _ in range(workers):
            worker, self._turn = self._turn, (self._turn + 1) % workers
            if self._knobs.in_order or self._held[worker] < self._knobs.prefetch:
                break
        self._held[worker] += 1
        before, self._last[worker] = self._last[worker], k
        self._following[before] = k
        return worker, bool(self._made[before])

    def lock(self, k: int) -> bool:
        """Let batch `k` wait for the one that its worker makes after it; return False if it has none."""
        following = self._following.get(k)
        if following is None or self._made[following]:
            return False
        self._locked[following] = k
        return True

    def unlocked(self, made: int) -> int | None:
        """Return the batch that waited for the making of another one."""
        return self._locked.pop(made, None)

    def finished(self, worker: int) -> None:
        """Count a batch less in the worker's hands."""
        self._held[worker] -= 1

    def free(self, made: int) -> int | None:
        """Return what the worker that has `made` something makes next, if it has anything."""
        self._made[made] = 1
        return self._following.get(made)


def shape_of(knobs: Knobs, draw: Draw) -> Shape:
    """Return the shape that a draw is fired through: a step that the host computes holds the loop."""
    shape = knobs.shape(pins=knobs.workers > 0 and any(draw.pin))
    return replace(shape, synchronises=True) if draw.compute_threads or any(draw.body_cpu) else shape


def _nothing(_: Any) -> None:
    """Do nothing: no event waits for this thread's CPU time."""


def _pieces(knobs: Knobs) -> int:
    """Return one piece a batch if reading overlaps neither with other decoding nor a limit's pause."""
    alone = max(1, knobs.workers) * knobs.ranks == 1 and knobs.storage.kind != "rate-limit"
    return 1 if alone or knobs.storage.kind == "memory" else min(CHUNKS, knobs.batch_size)


def walk(knobs: Knobs, draws: list[Draw]) -> list[Walked]:
    """Replay the drawn demands under `knobs`, one draw a rank of the node."""
    clock = VirtualClock(knobs.cores, knobs.neighbours)
    device = VirtualStorage(node_share(knobs.storage, knobs.nodes), len(draws) * max(1, knobs.workers))

    def stop_when_all_are_done() -> None:
        clock.stopped = all(rank.done for rank in ranks)

    meeting = Meeting(clock, len(draws))
    ranks = [
        TrainingProcess(clock, device, knobs, draw, number, stop_when_all_are_done, meeting)
        for number, draw in enumerate(draws)
    ]
    for rank in ranks:
        rank.begin_epoch(0)
    clock.run()
    assert clock.stopped, "every batch is taken"
    return [rank.walked() for rank in ranks]
