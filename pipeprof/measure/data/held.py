"""Data sets held in host memory: loaded once, shared by all workers, refused if they do not fit.

What is held lies in one `SharedBlock`, so that a worker maps it and copies nothing, under fork and spawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from pipeprof import units
from pipeprof.errors import DataError
from pipeprof.measure.data.datasets import Reader, Sample, Transform, naming
from pipeprof.measure.data.files import FileTable
from pipeprof.measure.host.machine import free_memory_bytes
from pipeprof.measure.probe import spans as recorder
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.measure.progress import progress

_USABLE_SHARE: Final = 0.9
"""Usable share of the free memory: the workers and their batches need some too."""
_THREADS, _AT_ONCE = 4, 256
"""Threads that load (reads and decoders leave the interpreter's lock), and items a round."""


class HeldItems:
    """Items in shared memory, one for each file, one after the other."""

    def __init__(self, files: FileTable, sizes: list[int], load: Callable[[Path], Any], what: str) -> None:
        """Load `sizes[i]` bytes for each item with `load(path)`. Raises `DataError` if they do not fit."""
        self._ends = np.cumsum(sizes, dtype=np.int64)
        title = f"{len(files)} {what}"
        _refuse_unless_it_fits(int(self._ends[-1]), title)
        self._block = SharedBlock(max(1, int(self._ends[-1])), "pipeprof-data")

        def put(index: int) -> None:
            with naming(files[index], index):
                self.view(index)[:] = memoryview(load(files[index])).cast("B")

        with (
            progress(f"loading {title} into memory", len(files)) as done,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            for first in range(0, len(files), _AT_ONCE):
                last = min(first + _AT_ONCE, len(files))
                list(pool.map(put, range(first, last)))
                done(last)

    def view(self, index: int) -> memoryview:
        """Return the bytes of item `index`, without copying them."""
        begin = int(self._ends[index - 1]) if index else 0
        return memoryview(self._block.buffer)[begin : int(self._ends[index])]


def _refuse_unless_it_fits(needed: int, title: str) -> None:
    free = free_memory_bytes()
    if needed > _USABLE_SHARE * free:
        raise DataError(
            f"{title} take {units.size(needed)} of memory, and {units.size(free)} is free "
            f"({units.percent(_USABLE_SHARE)} of it may be used)",
            "set data.samples lower, storage.keep to encoded, or choose another storage.tier",
        )


class HeldFiles:
    """Files held in memory, read as a data set reads a `Storage`; `storage` is where they came from."""

    def __init__(self, files: FileTable, storage: Reader) -> None:
        self.files = files
        sizes = []
        for index, path in enumerate(files):
            with naming(path, index):
                sizes.append(storage.size(path))
        self._held = HeldItems(files, sizes, storage.read_bytes, "files")
        self._order: npt.NDArray[np.intp] = np.argsort(files.names)

    def open(self, path: Path) -> BinaryIO:
        """Open a file as it was loaded. Raises `FileNotFoundError` if it was not."""
        return io.BytesIO(self.read_bytes(path))

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        return len(self._held.view(self._index(path)))

    def read_bytes(self, path: Path) -> bytes:
        """Read the bytes of a file as they were loaded. Raises `FileNotFoundError` if it was not."""
        index = self._index(path)
        with recorder.storage_read() as record:
            content = bytes(self._held.view(index))
            record.bytes = len(content)
        return content

    def _index(self, path: Path) -> int:
        name = self.files.name_of(path)
        place = min(int(np.searchsorted(self.files.names, name, sorter=self._order)), len(self._order) - 1)
        index = int(self._order[place])
        if self.files.names[index] != name:
            raise FileNotFoundError(f"{path} was not loaded into memory")
        return index


class HeldImages(Dataset[Sample]):
    """Images decoded beforehand, as RGB bytes; what is left of decoding is to hand them to PIL."""

    def __init__(self, files: FileTable, storage: Reader, transform: Transform) -> None:
        self.files, self.transform = files, transform
        sizes = []
        for index, path in enumerate(files):
            with naming(path, index), storage.open(path) as file, Image.open(file) as image:
                sizes.append(image.size)
        self._sizes = np.array(sizes, dtype=np.int32)

        def rgb_bytes(path: Path) -> bytes:
            with storage.open(path) as file, Image.open(file) as image:
                return image.convert("RGB").tobytes()

        self._held = HeldItems(files, [3 * w * h for w, h in sizes], rgb_bytes, "decoded images")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        width, height = self._sizes[index].tolist()
        with recorder.storage_read() as record:
            pixels = bytes(self._held.view(index))
            record.bytes = len(pixels)
        with recorder.span(recorder.DECODE):
            image = Image.frombytes("RGB", (width, height), pixels)
        return self.transform(image), self.files.label(index)


class HeldTensors(Dataset[Sample]):
    """Arrays of one shape and type, without their files' headers."""

    def __init__(self, files: FileTable, storage: Reader) -> None:
        self.files = files

        def load(path: Path) -> npt.NDArray[Any]:
            with storage.open(path) as file:
                return np.asarray(np.load(file))

        with naming(files[0], 0):
            first = load(files[0])
        self._shape, self._dtype = first.shape, first.dtype
        self._held = HeldItems(files, [first.nbytes] * len(files), load, "tensors")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        with recorder.storage_read() as record:
            values = np.frombuffer(self._held.view(index), self._dtype).reshape(self._shape).copy()
            record.bytes = values.nbytes
        return torch.from_numpy(values), self.files.label(index)
