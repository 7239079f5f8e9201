"""Files on an emulated device: really read from where they lie, at the pace of a cost model."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from pipeprof import units
from pipeprof.devices import Request, StorageModel
from pipeprof.measure.host.machine import free_memory_bytes
from pipeprof.measure.host.page_cache import warm
from pipeprof.measure.probe.spans import opened, reading, storage_read
from pipeprof.measure.storage.emulated_cache import EmulatedCache
from pipeprof.measure.storage.emulated_device import EmulatedDevice, MonotonicClock
from pipeprof.measure.storage.seekable_file import SeekableFile
from pipeprof.record.meta import EmulatedCacheMeta, StorageMeta

_MEMORY_SHARE: Final = 0.5
"""Share of the free memory that the real files may take."""


class EmulatedFile(SeekableFile):
    """A file on an emulated device. Put an `io.BufferedReader` over it, as `open` does over a real one.

    As Linux does, a read at the start of the file or where the last request ended asks the device for the
    whole read-ahead window, and a read elsewhere for no more than it wants. What a request brought in is read
    from memory afterwards, as long as the file stays open.

    It has no `fileno`, so that readers which would bypass it (`numpy.fromfile`) go through it.
    """

    def __init__(self, path: Path | str, device: EmulatedDevice, cache: EmulatedCache | None = None) -> None:
        self._file = io.FileIO(path, "rb")
        self._fd = self._file.fileno()
        self._device = device
        self._cache = cache
        facts = os.fstat(self._fd)
        self._size = facts.st_size
        self._id = facts.st_ino & (2**63 - 1)
        self._fetched_from = self._fetched_to = 0
        self.name = str(path)
        opened()

    def descriptor(self) -> int:
        """Return the real file's descriptor: reads through it are not slowed."""
        return self._fd

    def _end(self) -> int:
        return self._size

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as the file goes, for at most one request."""
        arrival = self._device.now_ns()
        view = memoryview(buffer)
        position = self._position
        end = min(position + view.nbytes, self._size)
        if end <= position:
            return 0
        if self._fetched_from <= position < self._fetched_to:
            end = min(end, self._fetched_to)
            count = os.preadv(self._fd, [view.cast("B")[: end - position]], position)
        else:
            count = self._fetch(view, end, arrival)
        self._position += count
        return count

    def _fetch(self, view: memoryview, end: int, arrival_ns: int) -> int:
        """Ask the device for what lies from here to `end`, and for more if it reads ahead."""
        position = self._position
        reading(self.name)
        if position in (0, self._fetched_to):
            end = min(max(end, position + self._device.model.readahead_bytes), self._size)
        request = Request(self._id, position, end - position)
        self._fetched_from, self._fetched_to = position, end
        if self._cache is not None and self._cache.holds(request):
            return os.preadv(self._fd, [view], position)
        with storage_read() as record:
            turn = self._device.begin(request, arrival_ns)
            count = os.preadv(self._fd, [view], position)
            self._device.wait(turn)
            record.bytes, record.queue_ns = request.size_bytes, turn.queue_ns
        self._device.completed(turn)
        return count

    def readall(self) -> bytes:
        """Read the rest of the file in one request; `RawIOBase` would ask for 8 KiB at a time."""
        rest = bytearray(max(0, self._size - self._position))
        view, done = memoryview(rest), 0
        while done < len(rest) and (count := self.readinto(view[done:])):
            done += count
        return bytes(view[:done])

    def close(self) -> None:
        """Close the real file."""
        if not self.closed:
            self._file.close()
        super().close()


class EmulatedStorage:
    """Files on an emulated device that all processes of a run share.

    `cache` stands for the page cache: None keeps nothing from one opening of a file to the next, as with a
    set much larger than memory.
    """

    emulated = True

    def __init__(
        self, model: StorageModel, cache: EmulatedCache | None = None, clock: MonotonicClock | None = None
    ) -> None:
        self.model = model
        self.cache = cache
        self.device = EmulatedDevice(model, clock)
        self.warnings: list[str] = []
        self.ranks = 1
        """Number of ranks of a job that read from the device."""

    def before(self, files: Sequence[Path]) -> None:
        """Read the real files into memory, so that the real device does not set the pace."""
        size = sum(path.stat().st_size for path in files)
        if size > _MEMORY_SHARE * free_memory_bytes():
            self.warnings.append(
                f"the set ({units.size(size)}) does not fit well into memory: the real device below may slow "
                f"the emulated {self.model.name} down"
            )
        else:
            warm(files)

    def open(self, path: Path) -> BinaryIO:
        """Open a buffered file: a small one costs one request, however it is read."""
        return io.BufferedReader(EmulatedFile(path, self.device, self.cache))

    def read_bytes(self, path: Path) -> bytes:
        """Read the whole file in one request."""
        with EmulatedFile(path, self.device, self.cache) as file:
            return file.readall()

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        return path.stat().st_size

    def describe(self) -> StorageMeta:
        """Return facts for `run.json`; call it again at the end for the counts."""
        return StorageMeta(
            tier=self.model.tier,
            name=self.model.name,
            emulated=True,
            model=self.model,
            emulator=self.device.facts(),
            emulated_cache=EmulatedCacheMeta() if self.cache is None else self.cache.facts(),
            ranks=self.ranks,
            warnings=tuple(self.warnings),
        )

    def close(self) -> None:
        """Release the shared memory of this process."""
        self.device.close()
        if self.cache is not None:
            self.cache.close()
