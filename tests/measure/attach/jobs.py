"""Jobs that pipeprof is attached to: they train until they are told to end, and say what came of it."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision import transforms

from pipeprof.measure.host import ptrace
from tests.forked import Program

STEPS_AT_MOST = 100_000
"""A job that a test has lost ends some day; none may end before its test has had enough of it."""


class Jpegs(Dataset[Any]):
    """Pictures of noise: decoding one costs four times as much as all that is done with it."""

    def __init__(self, directory: Path, length: int = 100_000) -> None:
        self.length = length
        self.files = [directory / f"{n}.jpg" for n in range(8)]
        random = np.random.default_rng(0)
        for file in self.files:
            if not file.exists():
                pixels = (random.random((300, 400, 3)) * 255).astype("uint8")
                Image.fromarray(pixels).save(file, quality=90)
        self.transform = transforms.Compose(
            [transforms.RandomResizedCrop(32), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        with self.files[index % len(self.files)].open("rb") as file:
            picture = Image.open(file).convert("RGB")
        return self.transform(picture), index


class Numbers(Dataset[Any]):
    """Samples that cost a sleep."""

    def __init__(self, length: int = 100_000, seconds: float = 0.002) -> None:
        self.length, self.seconds = length, seconds

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.seconds)
        return torch.full((4,), float(index))


class Stream(IterableDataset[Any]):
    """A stream of numbers, split among the workers."""

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, 100_000, every):
            time.sleep(0.002)
            yield torch.full((4,), float(index))


MakeLoaders = Callable[[], list[DataLoader[Any]]]


def train(loaders: MakeLoaders, directory: Path) -> None:
    """Train on the loaders in turn, epoch by epoch, until `stop` lies in the directory.

    `result.json` then has a digest after each step, and what is left of pipeprof. The job keeps nothing in
    memory from step to step, since its memory is looked at.
    """
    torch.manual_seed(0)
    made = loaders()
    said: dict[str, Any] = {"steps": 0}
    digest, steps = hashlib.sha256(), 0
    while True:
        for loader in made:
            for batch in loader:
                for tensor in batch if isinstance(batch, (list, tuple)) else (batch,):
                    digest.update(tensor.numpy().tobytes())
                steps += 1
                with (directory / "digests").open("a") as file:
                    file.write(f"{digest.hexdigest()[:16]}\n")
                (directory / "steps").write_text(str(steps))
                wanted = directory / "stop"
                if steps == STEPS_AT_MOST or wanted.exists():
                    digests = (directory / "digests").read_text().split()
                    said |= {"steps": steps, "digests": digests, "left": remains()}
                    (directory / "result.json").write_text(json.dumps(said))
                    return


def remains() -> dict[str, Any]:
    """Return what of pipeprof is in this process."""
    time.sleep(0.2)
    gc.collect()
    links = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(fd.readlink()))
        except OSError:
            continue
    return {
        "threads": [t.name for t in threading.enumerate() if t.name.startswith("pipeprof")],
        "mapped": [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:pipe" in line],
        "descriptors": [link for link in links if "pipeprof" in link or "/runs/" in link],
        "handler": signal.getsignal(signal.SIGPROF) != signal.SIG_DFL,
        "watched": sum("_pipeprof_watch" in getattr(each, "__dict__", {}) for each in iterators()),
        "proxies": [type(p).__name__ for each in iterators() for p in vars(each).values() if is_ours(p)],
        "get_iterator": DataLoader._get_iterator.__module__,
    }


def iterators() -> list[Any]:
    kind = torch.utils.data.dataloader._BaseDataLoaderIter
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]


def is_ours(part: Any) -> bool:
    return type(part).__module__.startswith("pipeprof")


CLEAN = {
    "threads": [],
    "mapped": [],
    "descriptors": [],
    "handler": False,
    "watched": 0,
    "proxies": [],
    "get_iterator": "torch.utils.data.dataloader",
}


class Job:
    """A job in a process of its own."""

    def __init__(self, loaders: MakeLoaders, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.program = Program(lambda: train(loaders, directory), directory)
        self.pid = self.program.pid

    @property
    def steps(self) -> int:
        try:
            return int((self.directory / "steps").read_text() or 0)
        except OSError:
            return 0

    def wait_for(self, steps: int, patience_s: float = 60.0) -> None:
        deadline = time.monotonic() + patience_s
        while self.steps < steps:
            assert time.monotonic() < deadline, f"the job came to {self.steps} steps"
            time.sleep(0.02)

    def end(self) -> dict[str, Any]:
        """Let the job end after its next step; return what it says."""
        (self.directory / "stop").touch()
        self.program.process.join(60)
        wait_for_session(self.pid)  # multiprocessing's tracker writes after the job has ended
        finished = self.program.finished(0.1)
        assert finished.returncode == 0, finished.stderr
        assert without_torn_cleanups(finished.stderr) == "", finished.stderr
        said: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return said


_TORN_CLEANUPS: Final = re.compile(
    r"\S*resource_tracker\.py:\d+: UserWarning: resource_tracker: "
    r"There appear to be (\d+) leaked semaphore .*\n  .*\n"
    r"((?:\S*resource_tracker\.py:\d+: UserWarning: resource_tracker: '/mp-\w+': \[Errno 2\] .*\n  .*\n)+)"
)


def without_torn_cleanups(stderr: str) -> str:
    """Return what a job has printed without Python's complaints of named semaphores that are gone already.

    They come of a race of Python's own. torch closes the queues of its workers and does not wait for their
    `QueueFeederThread`, which drops the last hold of a queue's locks: `SemLock._cleanup` unlinks the
    semaphore and then tells the tracker. A process that ends in between has not told it, and the tracker
    finds no such file. With a pause put between the two, one of five plain scripts that nobody attached to
    printed these very lines; without it none of 66 spawned jobs left alone did, and 2 of 14 that were
    attached to, so that this may be likelier with it (Python 3.11.7, 30 November 2026, two cores of a shared
    virtual machine). A semaphore that is left behind has no such line, and is not taken off.
    """

    def kept(found: re.Match[str]) -> str:
        return "" if found[2].count("[Errno 2]") == int(found[1]) else found[0]

    return _TORN_CLEANUPS.sub(kept, stderr)


def wait_for_session(leader: int, patience_s: float = 20.0) -> None:
    """Wait until the processes that a job had started are gone too."""
    deadline = time.monotonic() + patience_s
    while any(_session_of(pid) == leader for pid in psutil.pids()) and time.monotonic() < deadline:
        time.sleep(0.02)


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def digests_alone(loaders: MakeLoaders, directory: Path, steps: int) -> list[str]:
    """Return the digests of a job that was left alone."""
    job = Job(loaders, directory)
    job.wait_for(steps, 300.0)
    digests: list[str] = job.end()["digests"]
    return digests[:steps]


def may_trace() -> bool:
    """Tell whether this machine lets a process into another of the same user."""
    if not ptrace.is_supported():
        return False
    if (pid := os.fork()) == 0:
        signal.pause()
    try:
        thread = ptrace._Thread(pid)
        thread.let_go()
    except (OSError, ptrace.NoRightError):
        return False
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return True


@pytest.fixture(scope="session")
def ptrace_right() -> None:
    """Skip where a process cannot be entered."""
    if not may_trace():
        pytest.skip(f"no process can be entered here: ptrace is not allowed on this {platform.machine()}")
