"""An emulated storage device: a cost model whose timeline all processes of a run share.

Each read reserves its service time on the device (`devices.StorageModel` over shared memory, guarded by an
flock that the kernel drops when its holder dies), reads the real bytes from a warm file meanwhile, and sleeps
until its turn has ended.

A sleep always ends late. So that this does not slow the device down, the next request of the same thread
arrives as much earlier as its last one completed too late. The credit is bounded: a thread that was late
because it found no core has really come late, and above about 10,000 requests a second Python itself is the
limit. What the bound cuts off is counted, and `describe` tells it.
"""

from __future__ import annotations

import ctypes
import io
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from pipeprof.devices import Request, StorageModel
from pipeprof.measure.recorder import storage_read
from pipeprof.measure.shared import SharedBlock

CREDIT_NS: Final = 1_000_000
"""By how much at most a late completion shifts the next arrival back."""
LIMITED_SHARE: Final = 0.02
"""Where more than this share of the time was lost, the emulator and not its model set the pace."""
_REQUESTS, _SERVED_NS, _LOST_NS, _COUNTERS = 0, 1, 2, 3
_PR_SET_TIMERSLACK: Final = 29

_among_threads = threading.Lock()


def _new_lock() -> None:
    global _among_threads  # noqa: PLW0603 - a lock that another thread held at the fork stays locked for ever
    _among_threads = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


class Clock:
    """The real clock. A test hands in one whose sleep advances a number."""

    def now_ns(self) -> int:
        """`CLOCK_MONOTONIC` in nanoseconds."""
        return time.monotonic_ns()

    def sleep_until(self, end_ns: int) -> bool:
        """Return at `end_ns` or a little later. False where that time had passed already."""
        _lower_timer_slack()
        remaining = end_ns - time.monotonic_ns()
        if remaining > 0:
            time.sleep(remaining / 1e9)
        return remaining > 0


_thread = threading.local()


def _lower_timer_slack() -> None:
    """Ask the kernel for sleeps that end within 1 ns instead of 50 µs, once a thread; Linux only."""
    if getattr(_thread, "slack_pid", None) == os.getpid():
        return
    _thread.slack_pid = os.getpid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)


class Turn(NamedTuple):
    """A reservation on the device's timeline."""

    arrival_ns: int
    begin_ns: int
    end_ns: int

    @property
    def queue_ns(self) -> int:
        """How long the request waits behind others."""
        return self.begin_ns - self.arrival_ns


class EmulatedDevice:
    """The timeline of one device. Fork or pickle it to share it: all copies queue behind each other."""

    def __init__(self, model: StorageModel, clock: Clock | None = None) -> None:
        self.model = model
        self._clock = clock or Clock()
        self._block = SharedBlock(8 * (_COUNTERS + model.state_size), "pipeprof-storage")
        self._attach()
        for index, value in enumerate(model.new_state()):
            self._timeline[index] = value

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "_clock": self._clock, "_block": self._block}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    def _attach(self) -> None:
        self._counters = memoryview(self._block.buffer).cast("q")
        self._timeline = self._counters[_COUNTERS:]
        self._late = threading.local()

    def begin(self, request: Request) -> Turn:
        """Reserve the device for `request`, which arrives now. Waits for no one but the lock's holder."""
        arrival = self._clock.now_ns() - getattr(self._late, "ns", 0)
        with _among_threads, self._block.locked():
            service = self.model.serve(self._timeline, arrival, request)
            self._counters[_REQUESTS] += 1
            self._counters[_SERVED_NS] += service.end_ns - arrival
        return Turn(arrival, service.begin_ns, service.end_ns)

    def wait(self, turn: Turn) -> None:
        """Return when the device has served `turn`."""
        slept = self._clock.sleep_until(turn.end_ns)
        late = max(0, self._clock.now_ns() - turn.end_ns)
        self._late.ns = min(late, CREDIT_NS)
        if not slept and late > CREDIT_NS:
            # Without the lock: a count lost to a race once in a while changes no verdict.
            self._counters[_LOST_NS] += late - CREDIT_NS

    def facts(self) -> dict[str, Any]:
        """What the device has done so far, by all processes."""
        served, lost = self._counters[_SERVED_NS], self._counters[_LOST_NS]
        return {
            "requests": self._counters[_REQUESTS],
            "served_ns": served,
            "lost_ns": lost,
            "limited_by_emulator": lost > LIMITED_SHARE * (served + lost),
        }

    def close(self) -> None:
        """Release the shared memory of this process."""
        self._timeline.release()
        self._counters.release()
        self._block.close()


class EmulatedFile(io.RawIOBase):
    """A file on an emulated device: each read call is one request.

    It has no `fileno`, so that readers which would go round it (`numpy.fromfile`) come through it.
    """

    def __init__(self, path: Path | str, device: EmulatedDevice) -> None:
        self._file = io.FileIO(path, "rb")
        self._device = device
        facts = os.fstat(self._file.fileno())
        self._size = facts.st_size
        self._id = facts.st_ino & (2**63 - 1)
        self._position = 0
        self.name = str(path)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes: seeking costs nothing until something is read there."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset` and return the position."""
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as the file goes: one request for the bytes that there are."""
        size = min(len(memoryview(buffer).cast("B")), self._size - self._position)
        if size <= 0:
            return 0
        with storage_read() as record:
            turn = self._device.begin(Request(self._id, self._position, size))
            count = self._file.readinto(buffer) or 0
            self._device.wait(turn)
            record.bytes, record.queue_ns = count, turn.queue_ns
        self._position += count
        return count

    def readall(self) -> bytes:
        """The rest of the file in one request; `RawIOBase` would ask for 8 KiB at a time."""
        rest = bytearray(max(0, self._size - self._position))
        count = self.readinto(rest)
        return bytes(memoryview(rest)[:count])

    def close(self) -> None:
        """Close the real file."""
        if not self.closed:
            self._file.close()
        super().close()


class EmulatedStorage:
    """Files on an emulated device: really read from where they lie, at the pace of the model."""

    emulated = True

    def __init__(self, model: StorageModel, clock: Clock | None = None) -> None:
        self.model = model
        self.device = EmulatedDevice(model, clock)

    def open(self, path: Path) -> BinaryIO:
        """A buffered file whose window is the device's read-ahead, so that a small file costs one request."""
        return io.BufferedReader(EmulatedFile(path, self.device), self.model.readahead_bytes)

    def read_bytes(self, path: Path) -> bytes:
        """The whole file in one request."""
        with EmulatedFile(path, self.device) as file:
            return file.readall()

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`; call it again at the end for the counts."""
        return {
            "tier": self.model.tier,
            "name": self.model.name,
            "emulated": True,
            "model": self.model.figures(),
            "emulator": self.device.facts(),
        }
