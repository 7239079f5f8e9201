"""Data sets with one thing wrong, and the small pieces that they are made of."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

import pipeprof

MS = 1_000_000


_BLOCK = bytes(1 << 16)


def burn(cpu_ms: float) -> None:
    """Keep the calling thread on the CPU until it has had `cpu_ms` of it, however long that takes.

    Hashing lets go of the interpreter's lock, as decoding an image does.
    """
    end = time.thread_time_ns() + round(cpu_ms * MS)
    while time.thread_time_ns() < end:
        hashlib.sha1(_BLOCK)


def count(cpu_ms: float) -> None:
    """Keep the calling thread on the CPU in Python, which lets go of the lock where another thread asks."""
    end, counted = time.thread_time_ns() + round(cpu_ms * MS), 0
    while time.thread_time_ns() < end:
        counted += 1


class Planted(Dataset[torch.Tensor]):
    """Each sample costs what `work(index)` does; the sample itself is small."""

    def __init__(self, work: Callable[[int], None], size: int = 4096, shape: tuple[int, ...] = (64,)) -> None:
        self.work, self.size, self.shape = work, size, shape

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        self.work(index)
        return torch.full(self.shape, float(index))


class PlantedStream(IterableDataset[torch.Tensor]):
    """The same as a stream, a part of it on each worker."""

    def __init__(self, work: Callable[[int], None], size: int = 4096) -> None:
        self.work, self.size = work, size

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, self.size, step):
            self.work(index)
            yield torch.full((64,), float(index))


class Burn:
    """CPU time in code that nobody named, or under a stage's name."""

    def __init__(self, cpu_ms: float, stage: str = "") -> None:
        self.cpu_ms, self.stage = cpu_ms, stage

    def __call__(self, index: int) -> None:
        if self.stage:
            with pipeprof.stage(self.stage):
                burn(self.cpu_ms)
        else:
            burn(self.cpu_ms)


class Sleep:
    """Neither computing nor reading: a rate limit, a remote service."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __call__(self, index: int) -> None:
        time.sleep(self.ms / 1e3)


class Lock:
    """One lock for all workers, held for `ms` by each sample."""

    def __init__(self, ms: float) -> None:
        self.ms, self.lock = ms, multiprocessing.Lock()

    def __call__(self, index: int) -> None:
        with self.lock:
            time.sleep(self.ms / 1e3)


class Stragglers:
    """`usual_ms` for most samples; one in `every` takes `late_ms`."""

    def __init__(self, usual_ms: float, late_ms: float, every: int) -> None:
        self.usual_ms, self.late_ms, self.every = usual_ms, late_ms, every

    def __call__(self, index: int) -> None:
        time.sleep((self.late_ms if index % self.every == self.every - 1 else self.usual_ms) / 1e3)


class Both:
    """One after the other."""

    def __init__(self, *works: Callable[[int], None]) -> None:
        self.works = works

    def __call__(self, index: int) -> None:
        for work in self.works:
            work(index)


class Unsharp:
    """A transform that burns CPU; its name is what the verdict should say."""

    def __init__(self, cpu_ms: float) -> None:
        self.cpu_ms = cpu_ms

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        burn(self.cpu_ms)
        return image


class Transformed(Dataset[torch.Tensor]):
    """A data set with a torchvision pipeline of two transforms, one of them slow."""

    def __init__(self, slow_ms: float, quick_ms: float = 0.2) -> None:
        from torchvision import transforms

        self.pipeline = transforms.Compose([transforms.Lambda(_same), Unsharp(slow_ms), Shift(quick_ms)])

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(torch.full((64,), float(index)))


def _same(image: torch.Tensor) -> torch.Tensor:
    return image


class Shift(Unsharp):
    """A transform that costs little."""


class Paged(Dataset[torch.Tensor]):
    """Samples in one file on a real disk, read through mmap, evicted before each read."""

    def __init__(self, path: Path, sample_bytes: int) -> None:
        self.path, self.sample_bytes = path, sample_bytes
        self.count = path.stat().st_size // sample_bytes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        import os

        begin = index * self.sample_bytes
        with self.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), begin, self.sample_bytes, os.POSIX_FADV_DONTNEED)
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                view.madvise(mmap.MADV_RANDOM)
                total = sum(view[at] for at in range(begin, begin + self.sample_bytes, 4096))
        return torch.full((64,), float(total))


class SlowCollate:
    """Collate that costs CPU."""

    def __init__(self, cpu_ms: float) -> None:
        self.cpu_ms = cpu_ms

    def __call__(self, samples: list[torch.Tensor]) -> torch.Tensor:
        burn(self.cpu_ms)
        return torch.stack(samples)


class ManyTensors:
    """Collate into thousands of small tensors: each crosses between the processes by itself."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, samples: list[torch.Tensor]) -> list[torch.Tensor]:
        return [samples[i % len(samples)].clone() for i in range(self.count)]


def slow_start(worker: int) -> None:
    """A worker that takes long to start: imports, open files, a model."""
    time.sleep(0.5)
