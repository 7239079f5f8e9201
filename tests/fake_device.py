"""A device that is not there, behind the contract of `measure.device`: what a CPU can test of a GPU.

Its tensors lie in host memory and its steps are computed there, as torch computes them; its time is its own.
Work is queued in streams and takes the time that it is said to take, copies share one engine and overlap with
computation on other streams, launches return at once, events have the device's clock (with an offset, a drift
and 32-bit milliseconds), a graph is captured and replayed, and the device can be lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from pipeprof.record.meta import AcceleratorMeta

MS = 1_000_000
MOST_LAUNCHING_NS = 5 * MS
"""Of one stretch of launching: what happens once, such as imports in the first step, is no work."""
PAGEABLE_BYTES_PER_S, PINNED_BYTES_PER_S = 6e9, 24e9


class Clock(Protocol):
    """The host's clock."""

    def __call__(self) -> int: ...

    def wait_until(self, time_ns: int) -> None: ...


class RealClock:
    """`CLOCK_MONOTONIC`, on which waiting takes its time."""

    def __call__(self) -> int:
        return time.monotonic_ns()

    def wait_until(self, time_ns: int) -> None:
        while (ahead := time_ns - time.monotonic_ns()) > 0:
            time.sleep(ahead / 1e9)


class VirtualClock:
    """A clock that the test moves."""

    def __init__(self, now_ns: int = 1_000 * MS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def wait_until(self, time_ns: int) -> None:
        self.now_ns = max(self.now_ns, time_ns)


def link_ns(size_bytes: int, pinned: bool) -> int:
    """A link's time for one copy."""
    return 10_000 + round(size_bytes / (PINNED_BYTES_PER_S if pinned else PAGEABLE_BYTES_PER_S) * 1e9)


@dataclass(eq=False)
class FakeStream:
    """Work in order; `free_ns` is when the last of it ends, on the host's clock."""

    device: FakeDevice
    index: int
    number: int
    free_ns: int = 0

    def synchronize(self) -> None:
        self.device.check()
        self.device.flush(self)
        self.device.clock.wait_until(self.free_ns)

    def wait_event(self, event: FakeEvent) -> None:
        self.free_ns = max(self.free_ns, event.at_ns)


class FakeEvent:
    """Passed when the host's clock has come to `at_ns`."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.at_ns = 0
        self.stream: FakeStream | None = None
        self.captured = False
        self.late_ns = 0
        """Set by a test: the stream passes it so much later."""

    def record(self, stream: FakeStream) -> None:
        self.device.check()
        self.device.flush(stream)
        self.captured = self.device.graph is not None
        self.stream = stream
        self.at_ns = max(stream.free_ns, self.device.clock())
        self.device.recorded.append(self)

    def _check(self) -> None:
        self.device.check()
        if self.captured:
            raise RuntimeError("operation not permitted on an event last recorded in a capturing stream")

    def query(self) -> bool:
        self._check()
        reached = self.device.clock() if self.device.reached_ns is None else self.device.reached_ns
        return self.at_ns + self.late_ns <= reached

    def synchronize(self) -> None:
        self._check()
        self.device.clock.wait_until(self.at_ns + self.late_ns)

    def elapsed_time(self, end_event: FakeEvent) -> float:
        if not self.device.timed:
            raise NotImplementedError("this backend's events take no time")
        if not (self.query() and end_event.query()):
            raise RuntimeError("an event has not passed")
        ns = self.device.reading(end_event.at_ns + end_event.late_ns) - self.device.reading(
            self.at_ns + self.late_ns
        )
        return float(np.float32(ns / MS))


@dataclass
class FakeGraph:
    """What was launched while it was captured, to be launched again as a whole."""

    device: FakeDevice
    durations: list[tuple[str, int]] = field(default_factory=list)

    @contextmanager
    def capture(self) -> Iterator[None]:
        assert self.device.graph is None
        self.device.graph = self
        try:
            yield
        finally:
            self.device.graph = None

    def replay(self) -> None:
        for name, duration_ns in self.durations:
            self.device.launch(duration_ns, name=name)


@dataclass(frozen=True)
class Work:
    """One piece of work that the device did, on the host's clock."""

    name: str
    stream: int
    start_ns: int
    end_ns: int


class FakeDevice:
    """Devices of one kind, with streams.

    `slowness` turns the host's CPU time inside of `on` into work of that stream: at 3 the device takes three
    times as long for a step as the host for launching it, so that launches run ahead. Tests in virtual time
    launch by hand. `held` is the memory that the program holds on each device.
    """

    kind = "fake"
    torch_name = "cpu"
    pins = True
    has_library = True

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        drift: float = 0.0,
        offset_ns: int = 777 * MS,
        slowness: float = 0.0,
        timed: bool = True,
        side_streams: bool = True,
        pinned: bool = False,
        held: list[int] | None = None,
        copy_ns: Callable[[int, bool], int] = link_ns,
    ) -> None:
        self.clock: Clock = RealClock() if clock is None else clock
        self.drift, self.offset_ns, self.slowness = drift, offset_ns, slowness
        self.timed, self.side_streams, self.all_pinned = timed, side_streams, pinned
        self.held = [1] if held is None else held
        self.copy_ns = copy_ns
        self.lost: str | None = None
        self.reached_ns: int | None = None
        """Set by a test: how far the device has come; None for as far as the host's clock says."""
        self.graph: FakeGraph | None = None
        self.work: list[Work] = []
        self.made: list[FakeEvent] = []
        self.recorded: list[FakeEvent] = []
        self.blocking: list[bool] = []
        self.kept: list[tuple[Any, FakeStream]] = []
        self.library: list[bool] = []
        self.selected = 0
        self._streams: list[FakeStream] = []
        self._engine_free_ns = 0
        self._pinned: set[int] = set()
        self._default = [self._stream(index) for index in range(len(self.held))]
        self._current = list(self._default)
        self._launching: tuple[FakeStream, int, int] | None = None
        """The stream into which the host launches; since when that is not queued, and its CPU time then."""

    # -- the contract --------------------------------------------------------------------------------------

    def in_use(self) -> bool:
        return any(self.held)

    def count(self) -> int:
        return len(self.held)

    def index(self) -> int:
        return self.selected

    def select(self, index: int) -> None:
        self.selected = index

    def busiest(self) -> int | None:
        self.check()
        return self.held.index(max(self.held)) if any(self.held) else None

    def held_bytes(self, index: int) -> int | None:
        return self.held[index]

    def current_stream(self, index: int | None = None) -> FakeStream:
        return self._current[self.selected if index is None else index]

    def new_stream(self) -> FakeStream:
        return self._stream(self.selected)

    @contextmanager
    def on(self, stream: FakeStream) -> Iterator[None]:
        self.check()
        before, self._current[stream.index] = self._current[stream.index], stream
        outer, self._launching = self._launching, (stream, self.clock(), time.thread_time_ns())
        try:
            yield
            self.flush(stream)
        finally:
            self._current[stream.index], self._launching = before, outer

    def event(self, index: int | None = None) -> FakeEvent:
        self.check()
        self.made.append(FakeEvent(self))
        return self.made[-1]

    def capturing(self) -> bool:
        return self.graph is not None

    def synchronize(self) -> None:
        self.check()
        latest = max(stream.free_ns for stream in self._streams)
        self.clock.wait_until(latest)

    def move(self, tensor: torch.Tensor, non_blocking: bool) -> torch.Tensor:
        pinned = self.is_pinned(tensor)
        stream, now = self.current_stream(), self.clock()
        duration = self.copy_ns(tensor.nbytes, pinned)
        start = max(now, stream.free_ns, self._engine_free_ns)
        stream.free_ns = self._engine_free_ns = start + duration
        self.work.append(Work("copy", stream.number, start, start + duration))
        self.blocking.append(not non_blocking)
        if not (non_blocking and pinned):
            self.clock.wait_until(stream.free_ns)
        if self._launching is not None:  # a copy is no computation of the host's
            self._launching = (self._launching[0], self.clock(), time.thread_time_ns())
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return self.all_pinned or id(tensor) in self._pinned

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        self._pinned.add(id(copy))
        return copy

    def keep_for(self, tensor: Any, stream: FakeStream) -> None:
        self.kept.append((tensor, stream))

    def libraries(self, enabled: bool) -> AbstractContextManager[Any]:
        self.library.append(enabled)
        return torch.backends.cudnn.flags(enabled=enabled)

    def facts(self, index: int) -> AcceleratorMeta:
        return AcceleratorMeta(
            kind=self.kind, name=f"made {index}", emulated=False, device=index, uuid=f"uuid-{index}"
        )

    def memory_bytes(self, index: int) -> int | None:
        return 2**30

    # -- what tests do with it -----------------------------------------------------------------------------

    def _stream(self, index: int) -> FakeStream:
        self._streams.append(FakeStream(self, index, len(self._streams)))
        return self._streams[-1]

    def check(self) -> None:
        if self.lost is not None:
            raise RuntimeError(self.lost)

    def lose(self, message: str = "device lost\nand much more") -> None:
        """Let every call fail from now on."""
        self.lost = message

    def reading(self, time_ns: int) -> int:
        """Return what the device's clock shows at a time of the host's."""
        return self.offset_ns + round(time_ns * (1 + self.drift))

    def launch(self, duration_ns: int, stream: FakeStream | None = None, name: str = "kernel") -> int:
        """Queue work in a stream, by default the current one; return when it ends."""
        self.check()
        if self.graph is not None:
            self.graph.durations.append((name, duration_ns))
            return self.clock()
        chosen = self.current_stream() if stream is None else stream
        return self._run(chosen, self.clock(), duration_ns, name)

    def _run(self, stream: FakeStream, since_ns: int, duration_ns: int, name: str) -> int:
        start = max(since_ns, stream.free_ns)
        stream.free_ns = start + duration_ns
        if duration_ns:
            self.work.append(Work(name, stream.number, start, stream.free_ns))
        return stream.free_ns

    def flush(self, stream: FakeStream) -> None:
        """Queue what the host has launched into `stream` until now."""
        if self._launching is None or self._launching[0] is not stream:
            return
        _, since, spent = self._launching
        cpu = time.thread_time_ns()
        self._launching = (stream, self.clock(), cpu)
        duration = round(min(MOST_LAUNCHING_NS, cpu - spent) * self.slowness)
        if not duration:
            return
        if self.graph is not None:
            self.graph.durations.append(("step", duration))
        else:
            self._run(stream, since, duration, "step")

    def busy_ns(self, start_ns: int, end_ns: int) -> int:
        """Return in how much of an interval at least one piece of work ran."""
        busy, free_from = 0, start_ns
        for piece in sorted(self.work, key=lambda piece: piece.start_ns):
            begin, end = max(piece.start_ns, free_from), min(piece.end_ns, end_ns)
            busy += max(0, end - begin)
            free_from = max(free_from, end)
        return busy
