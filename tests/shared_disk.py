"""Making batches whose workers read from one disk: each waits for the others' reads, sample by sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from pipeprof.devices import Request, StorageModel


@dataclass
class Batch:
    """A batch being made; times in ns."""

    number: int
    dispatched: int
    start: int = 0
    finish: int = 0
    read: int = 0
    """Time of its reads, waiting for others' included."""
    queued: int = 0
    samples: int = 0


@dataclass
class SharedDisk:
    """Workers with a core each and one storage device. Give it batches in order of time."""

    model: StorageModel
    workers: int
    batch_size: int
    sample_bytes: int
    work: Sequence[int]
    """Time of making each batch that is no reading; done evenly behind its reads."""
    state: list[int] = field(init=False)
    _queues: list[deque[Batch]] = field(init=False)
    _ready: list[tuple[int, int, int]] = field(default_factory=list)
    _free: list[bool] = field(init=False)
    _serial: int = 0
    made: dict[int, Batch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = self.model.new_state()
        self._queues = [deque() for _ in range(self.workers)]
        self._free = [True] * self.workers

    def give(self, number: int, worker: int, at_ns: int) -> None:
        """Hand a batch to a worker."""
        self._queues[worker].append(Batch(number, at_ns))
        if self._free[worker]:
            self._free[worker] = False
            self._push(at_ns, worker)

    def _push(self, at_ns: int, worker: int) -> None:
        self._serial += 1
        heappush(self._ready, (at_ns, self._serial, worker))

    def finished(self, number: int) -> list[Batch]:
        """Work until batch `number` is made; return all that were made meanwhile, in order of time."""
        made = []
        while number not in self.made:
            now, _, worker = heappop(self._ready)
            batch = self._queues[worker][0]
            if batch.samples == 0:
                batch.start = now
            if batch.samples < self.batch_size:
                self._read(batch, now, worker)
                continue
            batch.finish = now
            self.made[batch.number] = batch
            made.append(batch)
            self._queues[worker].popleft()
            self._free[worker] = not self._queues[worker]
            if self._queues[worker]:
                self._push(max(now, self._queues[worker][0].dispatched), worker)
        return made

    def _read(self, batch: Batch, now: int, worker: int) -> None:
        place = batch.number * self.batch_size + batch.samples
        served = self.model.serve(self.state, now, Request(place, 0, self.sample_bytes))
        batch.samples += 1
        batch.read += served.end_ns - now
        batch.queued += served.begin_ns - now
        done = self.work[batch.number] * batch.samples // self.batch_size
        before = self.work[batch.number] * (batch.samples - 1) // self.batch_size
        self._push(served.end_ns + done - before, worker)
