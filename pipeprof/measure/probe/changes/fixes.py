"""Fixes that are not arguments of a loader, tried on a script without an edit and undone at its end.

`read_fixes` reads `--try` and refuses impossible fixes; each fix says what it does, and what it undid.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from torch.utils.data import IterableDataset

from pipeprof import units
from pipeprof.errors import MeasureError
from pipeprof.measure.host import page_cache
from pipeprof.measure.host.machine import free_memory_bytes
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.changes import construct
from pipeprof.measure.probe.changes.cached import USABLE_SHARE, Cached
from pipeprof.suggest import nearest
from pipeprof.vocabulary import fixes

_LEFT_FREE: Final = 0.1
"""Share of the free memory that `ram` leaves to the program."""
_MASKED: Final = "sched_setaffinity"


class Tried(Protocol):
    """A fix that is tried."""

    def begin(self) -> str:
        """Carry it out before the script starts. Return what is done. Raises `MeasureError`."""
        ...

    def end(self) -> str:
        """Take it back. Return what was taken back."""
        ...


@dataclass(frozen=True, slots=True)
class _OneThread:
    """One thread for the libraries of each worker, whatever the data set asks for."""

    def begin(self) -> str:
        hook.start_workers_with(keep_to_one_thread)
        return (
            "workers keep torch, OpenCV and numba to one thread; a data set that asks for more is not heard"
        )

    def end(self) -> str:
        hook.start_workers_without(keep_to_one_thread)
        return "it was done in workers alone, which have ended"


def keep_to_one_thread() -> None:
    """Give this worker's libraries one thread each, for good."""
    import torch

    torch.set_num_threads(1)
    torch.__dict__["set_num_threads"] = _not_heard
    for module, name in (("cv2", "setNumThreads"), ("numba", "set_num_threads")):
        library = sys.modules.get(module)
        if library is not None:
            with suppress(Exception):  # a foreign library may refuse in any way: it is left as it was
                getattr(library, name)(1)
                setattr(library, name, _not_heard)
    pools = sys.modules.get("threadpoolctl")  # scikit-learn brings it along: it knows BLAS and OpenMP
    if pools is not None:
        pools.threadpool_limits(1)


def _not_heard(threads: int) -> None:
    """Stand in for a function that sets a number of threads."""


@dataclass(slots=True)
class _GcFreeze:
    """All objects of the process frozen before workers start, and once more in each."""

    before: int = 0

    def begin(self) -> str:
        self.before = gc.get_freeze_count()
        hook.before_iterators(_freeze)
        hook.start_workers_with(gc.freeze)
        return "gc.collect() and gc.freeze() before each pass starts its workers, gc.freeze() in each worker"

    def end(self) -> str:
        hook.before_iterators_no_more(_freeze)
        hook.start_workers_without(gc.freeze)
        frozen = gc.get_freeze_count()
        if self.before:
            return "objects stay frozen: some were before, and those cannot be told apart"
        gc.unfreeze()
        return f"{units.plural(frozen, 'object')} unfrozen"


def _freeze() -> None:
    gc.collect()
    gc.freeze()


@dataclass(frozen=True, slots=True)
class _Affinity:
    """All cores of the machine for each worker, whatever mask it inherits."""

    def begin(self) -> str:
        if not hasattr(os, _MASKED):
            raise MeasureError("--try affinity: this system has no CPU masks", "leave it out")
        hook.start_workers_with(use_all_cores)
        here, whole = len(os.sched_getaffinity(0)), os.cpu_count() or 1
        return f"workers may run on all {whole} cores; the process itself may use {here} when it starts"

    def end(self) -> str:
        hook.start_workers_without(use_all_cores)
        return "it was done in workers alone, which have ended"


def use_all_cores() -> None:
    """Let this worker run on every core that its container allows."""
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


@dataclass(slots=True)
class _FileSystemSharing:
    """Batches shared by the names of files in /dev/shm, not by descriptors."""

    before: str = ""

    def begin(self) -> str:
        self.before = _torch_mp().get_sharing_strategy()
        share_by_file_system()
        hook.start_workers_with(share_by_file_system)
        return f"batches are shared by file_system instead of {self.before}"

    def end(self) -> str:
        hook.start_workers_without(share_by_file_system)
        _torch_mp().set_sharing_strategy(self.before)
        return f"the strategy is {self.before} again"


def _torch_mp() -> Any:
    from torch import multiprocessing  # it has no types

    return multiprocessing


def share_by_file_system() -> None:
    """Share this process's tensors by names of files."""
    _torch_mp().set_sharing_strategy("file_system")


@dataclass(slots=True)
class _Ram:
    """Files of a directory read into the page cache, from which every way of reading is served."""

    directory: Path
    _absent: list[Path] = field(default_factory=list)
    """Files that were not in memory before."""
    _files: list[Path] = field(default_factory=list)

    def begin(self) -> str:
        try:
            self._files = sorted(path for path in self.directory.rglob("*") if path.is_file())
            needed = sum(path.stat().st_size for path in self._files)
            room = int(free_memory_bytes() * (1 - _LEFT_FREE))
            if needed > room:
                raise MeasureError(
                    f"--try ram: {self.directory} holds {units.size(needed)}, "
                    f"more than the {units.size(room)} of memory that are free",
                    "try it with less data, or on a machine with more memory",
                )
            self._absent = [path for path in self._files if page_cache.residency([path]).share != 1.0]
            page_cache.warm(self._files)
        except OSError as error:
            raise MeasureError(f"--try ram: {self.directory} cannot be read: {error.strerror}") from error
        if not self._files:
            raise MeasureError(
                f"--try ram: there is no file in {self.directory}", "give the data's directory"
            )
        return f"{self._held()} of {units.plural(len(self._files), 'file')} in the page cache"

    def _held(self) -> str:
        share = page_cache.residency(self._files).share
        return "an unknown share" if share is None else units.percent(share)

    def end(self) -> str:
        try:
            held = self._held()
            page_cache.evict(self._absent)
        except OSError as error:  # someone has removed the files
            return f"not taken back: {error.strerror}"
        dropped = units.plural(len(self._absent), "file")
        return f"{held} was still there at the end; {dropped} that had not been there before dropped"


class _Kept(Cached[Any]):
    """A data set with its samples kept that has the attributes of the one it stands for."""

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("_"):  # while it is unpickled there is no data set yet
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index) if isinstance(index, int) else self.dataset[index]


@dataclass(slots=True)
class _Caching:
    """`pipeprof.cached(dataset, "ram")` around the data set of each loader that the script makes."""

    room_bytes: int = 0
    _kept: list[tuple[Any, _Kept]] = field(default_factory=list)
    """Data sets, each with its wrapper: one for all loaders of a data set."""

    def begin(self) -> str:
        self.room_bytes = int(free_memory_bytes() * USABLE_SHARE)
        construct.wrap_data_sets(self.wrap)
        return (
            f"samples are kept in memory once they are made, up to {units.size(self.room_bytes)}; what is "
            "random in the data set is kept too, so that this is a trial and no training"
        )

    def wrap(self, dataset: Any) -> Any:
        """Return the data set with its samples kept; one without samples by number stays as it is."""
        if isinstance(dataset, Cached | IterableDataset) or not hasattr(dataset, "__getitem__"):
            return dataset
        for known, kept in self._kept:
            if known is dataset:
                return kept
        try:
            kept = _Kept(dataset, max(1, self.room_bytes // 2 ** (len(self._kept) + 1)), None, None)
        except Exception:  # a foreign length may be refused in any way
            return dataset
        self._kept.append((dataset, kept))
        return kept

    def end(self) -> str:
        construct.wrap_data_sets_no_more(self.wrap)
        caches = [(kept.kept, len(kept)) for _, kept in self._kept]
        if not caches:
            return "the script made no loader of a data set with samples by number"
        return "kept " + ", ".join(
            f"{cache.samples:,} of {count:,} samples ({units.size(cache.bytes)})" for cache, count in caches
        )


_SIMPLE: Final[dict[str, Callable[[], Any]]] = {
    fixes.ONE_THREAD.word: _OneThread,
    fixes.GC_FREEZE.word: _GcFreeze,
    fixes.AFFINITY.word: _Affinity,
    fixes.FILE_SYSTEM_SHARING.word: _FileSystemSharing,
    "cached": _Caching,
}
WORDS: Final = (*_SIMPLE, f"{fixes.RAM.word}=DIR")
"""Fixes that `--try` takes."""


def read_fixes(texts: Sequence[str]) -> list[tuple[str, Tried]]:
    """Read `--try one-thread`, `--try ram=DIR`. Raises `MeasureError` for what cannot be tried."""
    read: list[tuple[str, Tried]] = []
    for text in dict.fromkeys(texts):
        word, equals, place = text.partition("=")
        if word == fixes.RAM.word:
            directory = Path(place)
            if not equals or not directory.is_dir():
                raise MeasureError(f"--try {text}: no directory", "say where the data lies: --try ram=DIR")
            read.append((text, _Ram(directory)))
        elif text in _SIMPLE:
            read.append((text, _SIMPLE[text]()))
        else:
            raise MeasureError(f"--try {text}: it cannot be tried without an edit", nearest(text, WORDS))
    return read
