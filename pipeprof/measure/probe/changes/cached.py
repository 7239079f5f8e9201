"""A data set whose samples are made once and kept: in memory or in a file, shared by all workers.

Wrap the work that is expensive and the same each time, such as reading and decoding; random steps belong in
`transform`, which is applied to each kept sample every time.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, IterableDataset

from pipeprof import units
from pipeprof.errors import DataError
from pipeprof.measure.host.machine import free_memory_bytes
from pipeprof.measure.probe import spans as recorder
from pipeprof.measure.probe.shared_memory import SharedBlock

Sample = TypeVar("Sample")
Place = Literal["ram", "disk"]
USABLE_SHARE: Final = 0.8
"""Usable share of the free space: the workers, their batches and other programs need some too."""
_LOOKED_AT: Final = 5
"""Samples that are made to estimate the size of all."""
_SPARE: Final = 1.25
"""Factor over the estimate: the samples that were not examined may be larger."""
_EMPTY, _BEING_WRITTEN, _KEPT = 0, 1, 2


class Kept(NamedTuple):
    """Contents of a cache."""

    samples: int
    bytes: int
    room_bytes: int


def cached(
    dataset: Dataset[Sample],
    where: Place = "ram",
    bytes: int | None = None,
    *,
    transform: Callable[[Sample], Any] | None = None,
    directory: Path | str | None = None,
) -> Cached[Sample]:
    """Return a data set that makes each sample of `dataset` once and keeps it, for all workers together.

    `where` is "ram", memory that the workers share and that is gone with this process, or "disk", a file
    without a name in `directory` (by default that of temporary files), gone with this process too. It takes
    at most `bytes`, by default an estimate from a few samples; samples that do not fit are made again each
    time. `transform` is applied to each sample after it was kept, so that random augmentation stays random.
    Samples must be picklable; they come back as equal copies.

    Raises `DataError` for a data set without `__len__` and `__getitem__`, a place that is neither, or if
    memory or disk has no room for `bytes`.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"cached() of a {type(dataset).__name__}, which has no samples by number",
            "wrap a data set with __getitem__ and __len__",
        )
    if where not in ("ram", "disk"):
        raise DataError(f"cached(where={where!r})", 'choose "ram" or "disk"')
    place = Path(directory or tempfile.gettempdir()) if where == "disk" else None
    size = _estimated_bytes(dataset) if bytes is None else int(bytes)
    _refuse_unless_it_fits(size, place, is_estimate=bytes is None)
    return Cached(dataset, size, place, transform)


class Cached(Dataset[Any], Generic[Sample]):
    """A data set with its samples kept: see `cached`."""

    def __init__(
        self,
        dataset: Dataset[Sample],
        size_bytes: int,
        directory: Path | None,
        transform: Callable[[Sample], Any] | None,
    ) -> None:
        self.dataset, self.transform = dataset, transform
        count = len(dataset)  # type: ignore[arg-type]
        try:
            self._block = SharedBlock(max(1, size_bytes), "pipeprof-cached", directory)
        except OSError as error:
            raise DataError(
                f"cannot keep {units.size(size_bytes)} in {directory or 'memory'}: {error.strerror}",
                "give bytes=… that fit, or another directory",
            ) from error
        # one row a sample: state, offset, size; and one before them all: the next free offset
        self._rows = SharedBlock(8 * 3 * (count + 1), "pipeprof-cached-index")
        self._table: npt.NDArray[np.int64] | None = None
        weakref.finalize(self, _close, self._block, self._rows)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        row = self._index[place + 1]
        sample = self._read(row) if row[0] == _KEPT else self._made(place)
        return sample if self.transform is None else self.transform(sample)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a view of memory is mapped anew

    @property
    def kept(self) -> Kept:
        """Return how many samples are kept so far, and how many of the available bytes they take."""
        whole = self._index[1:]
        there = whole[:, 0] == _KEPT
        return Kept(int(there.sum()), int(whole[there, 2].sum()), self._block.size_bytes)

    @property
    def _index(self) -> npt.NDArray[np.int64]:
        if self._table is None:
            self._table = np.frombuffer(self._rows.buffer, np.int64).reshape(-1, 3)
        return self._table

    def _read(self, row: npt.NDArray[np.int64]) -> Sample:
        _, begin, size = row.tolist()
        with recorder.storage_read() as record:
            pickled = self._block.buffer[begin : begin + size]
            record.bytes = size
        return pickle.loads(pickled)  # type: ignore[no-any-return]

    def _made(self, place: int) -> Sample:
        """Make a sample, and keep it if there is room and no one else does."""
        sample: Sample = self.dataset[place]
        pickled = pickle.dumps(sample, pickle.HIGHEST_PROTOCOL)
        begin = self._reserve(place, len(pickled))
        if begin is not None:
            self._block.buffer[begin : begin + len(pickled)] = pickled
            with self._rows.locked():
                self._index[place + 1, 0] = _KEPT
        return sample

    def _reserve(self, place: int, size: int) -> int | None:
        """Take room for a sample; None if there is none, or if another worker is already writing it."""
        with self._rows.locked():
            free, row = int(self._index[0, 1]), self._index[place + 1]
            if row[0] != _EMPTY or free + size > self._block.size_bytes:
                return None
            self._index[0, 1] = free + size
            row[:] = (_BEING_WRITTEN, free, size)
            return free


def _close(*blocks: SharedBlock) -> None:
    for block in blocks:
        block.close()


def _estimated_bytes(dataset: Any) -> int:
    """Estimate the bytes that all samples take, from some of them."""
    count = len(dataset)
    some = sorted({i * (count - 1) // max(1, _LOOKED_AT - 1) for i in range(_LOOKED_AT)}) if count else []
    sizes = [len(pickle.dumps(dataset[i], pickle.HIGHEST_PROTOCOL)) for i in some]
    return round(_SPARE * count * sum(sizes) / max(1, len(sizes)))


def _refuse_unless_it_fits(needed: int, directory: Path | None, is_estimate: bool) -> None:
    """Raise `DataError` if the machine has no room for that many bytes."""
    if needed <= 0 and not is_estimate:
        raise DataError(f"cached(bytes={needed})", "give a number of bytes above 0")
    try:
        free = free_memory_bytes() if directory is None else shutil.disk_usage(directory).free
    except OSError as error:
        raise DataError(f"{directory}: {error.strerror}", "give a directory that exists") from error
    if needed > USABLE_SHARE * free:
        about = "an estimated " if is_estimate else ""
        raise DataError(
            f"the samples take {about}{units.size(needed)}, and {units.size(free)} is free "
            f"in {'memory' if directory is None else os.fspath(directory)} "
            f"({units.percent(USABLE_SHARE)} of it may be used)",
            'give bytes=… to keep a part of them, or where="disk"',
        )
