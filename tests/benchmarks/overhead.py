"""What observing costs: plain and observed runs of one loop in turn, A B A B, in one process.

    python tests/benchmarks/overhead.py [jpeg|ram|ram0|spans|size|memory ...]

Counted is CPU time of the main process and its workers, because wall time drowns in noise. Printed is the
median of the paired ratios with a 95 % interval from a bootstrap: for pipeprof, and without workers for
torch.profiler and cProfile on the same loop, which do not see workers. Results are kept in README.md beside
this file.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import datasets, transforms

import pipeprof
from pipeprof.measure.batch_recorder import BatchRecorder
from pipeprof.measure.recorder import activate, span
from pipeprof.measure.ring import Ring, Slot
from pipeprof.measure.session import Session


class Rows(Dataset[Any]):
    """In-RAM tensors: almost no work to hide in."""

    def __init__(self, length: int) -> None:
        self.rows, self.length = torch.zeros(1024, 8), length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.rows[index % 1024]


def images(folder: Path, count: int) -> datasets.ImageFolder:
    """JPEGs of ImageNet's size: a smooth field with some noise comes to about 110 KB."""
    (folder / "class").mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + random.integers(-18, 18, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "class" / f"{number}.jpg", quality=90)
    steps = [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    return datasets.ImageFolder(str(folder), transform=transforms.Compose(steps))


def cpu_s() -> tuple[float, float]:
    """CPU seconds of this process, and of the children that have ended."""
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime, theirs.ru_utime + theirs.ru_stime


def epoch(loader: Any) -> tuple[float, float]:
    """CPU seconds of one epoch, in the main process and in its workers."""
    gc.collect()
    main, workers = cpu_s()
    for _ in loader:
        pass
    gc.collect()  # the iterator is gone, its workers have been waited for
    main_after, workers_after = cpu_s()
    return main_after - main, workers_after - workers


@contextmanager
def observed(loader: Any) -> Iterator[Any]:
    with pipeprof.profile(loader):
        yield loader


@contextmanager
def under_torch_profiler(loader: Any) -> Iterator[Any]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        yield loader


@contextmanager
def under_cprofile(loader: Any) -> Iterator[Any]:
    with cProfile.Profile():
        yield loader


def paired(make: Callable[[], Any], tool: Callable[[Any], Any], rounds: int) -> list[tuple[Any, Any]]:
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:
            plain = epoch(make())
        with tool(make()) as loader:
            used = epoch(loader)
        if number % 2:
            plain = epoch(make())
        pairs.append((plain, used))
    return pairs


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median, and its 95 % interval by bootstrap."""
    random = np.random.default_rng(0)
    medians = np.median(random.choice(values, (4000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def compare(name: str, make: Callable[[], Any], batches: int, samples: int, rounds: int) -> None:
    workers = make().num_workers
    tools = {"pipeprof": observed}
    if workers == 0:
        tools |= {"torch.profiler": under_torch_profiler, "cProfile": under_cprofile}
    for tool, wrap in tools.items():
        pairs = paired(make, wrap, rounds if tool == "pipeprof" else max(3, rounds // 3))
        ratio = interval([sum(used) / sum(plain) for plain, used in pairs])
        main_us = interval([(used[0] - plain[0]) / batches * 1e6 for plain, used in pairs])
        sample_us = interval([(sum(used) - sum(plain)) / samples * 1e6 for plain, used in pairs])
        print(f"{name:24} {tool:14} CPU x {shown(ratio, '.3f')}  main {shown(main_us, '.1f')} us/batch"
              f"  all {shown(sample_us, '.2f')} us/sample")  # fmt: skip


def shown(value: tuple[float, float, float], form: str) -> str:
    return f"{value[0]:{form}} [{value[1]:{form}}, {value[2]:{form}}]"


def jpeg(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = images(Path(folder), 256)
        compare("JPEG, 2 workers", lambda: DataLoader(data, 32, num_workers=2), 8, 256, rounds)


def ram(rounds: int, workers: int = 2) -> None:
    data = Rows(64 * 1000)
    name = f"in RAM, {workers} workers"
    compare(name, lambda: DataLoader(data, 64, num_workers=workers), 1000, 64_000, rounds)


def spans(rounds: int) -> None:
    """The cost of one span in the default mix of plain and detailed batches, and where nobody listens."""
    ring = Ring(1, 1 << 16)
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    costs, idle = [], []
    for _ in range(rounds):
        before = time.thread_time_ns()
        for seq in range(64):
            recorder.begin(0, seq, 0)
            for _ in range(512):
                with span("decode"):
                    pass
            recorder.finish(0)
        costs.append((time.thread_time_ns() - before) / 64 / 512)
        ring.drain(0)
        activate(None)
        before = time.thread_time_ns()
        for _ in range(10_000):
            with pipeprof.stage("x"):
                pass
        idle.append((time.thread_time_ns() - before) / 10_000)
    ring.close()
    print(
        f"a span {np.median(costs):.0f} ns (best {min(costs):.0f}); without a probe {np.median(idle):.0f} ns"
    )


class EightOps(Dataset[Any]):
    """Eight marked steps a sample, about as long as they are in an image pipeline."""

    def __len__(self) -> int:
        return 64 * 2000

    def __getitem__(self, index: int) -> int:
        for number in range(8):
            with pipeprof.stage(f"op{number}"):
                if index % 7 == number:
                    sum(range(20))
        return index


def size(_: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Session(Path(folder) / "run") as session:
            for _ in session.loader(EightOps(), batch_size=64, num_workers=2):
                pass
        sizes = {path.name: path.stat().st_size for path in (Path(folder) / "run").glob("*.parquet")}
    print(f"{sum(sizes.values()) / 2000:.0f} bytes a batch in Parquet: {json.dumps(sizes)}")


def memory(_: int, batches: int = 200_000) -> None:
    """Resident memory of the main process and its worker, over one long epoch."""
    data = TensorDataset(torch.zeros(batches * 2, 1))
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "run") as session:
        loader = session.loader(data, batch_size=2, num_workers=1)
        for step, _ in enumerate(loader, 1):
            if step % (batches // 10) == 0:
                main = psutil.Process()
                resident = [main, *main.children()]
                kib = ", ".join(f"{p.memory_info().rss // 1024} KiB" for p in resident)
                print(f"{step:8} batches: {kib}", flush=True)


PARTS: dict[str, Callable[[int], None]] = {
    "jpeg": jpeg,
    "ram": ram,
    "ram0": lambda rounds: ram(rounds, workers=0),
    "spans": spans,
    "size": size,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts:
        PARTS[part](options.rounds)


if __name__ == "__main__":
    main()
