"""What a long run takes: bytes a batch on the disk, and memory that does not grow with its length."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info
from torchvision.transforms import Compose

from pipeprof.measure.session.session import Session
from pipeprof.measure.session.steps.finished import Finished

OPS = 8
BATCHES = 500
MANY = 4000
MOST_BYTES_A_BATCH = 200


def ops() -> Compose:
    """Eight transforms of eight names."""
    kinds = [type(f"Op{n}", (), {"__call__": lambda _, sample: sample}) for n in range(OPS)]
    return Compose([kind() for kind in kinds])


class Samples:
    """Each goes through eight transforms; two, a quarter through and at the end, tell a worker's memory."""

    def __init__(self, batches: int) -> None:
        self.batches, self.transform, self.nothing = batches, ops(), torch.zeros(1)

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        if get_worker_info() is not None and index in (len(self) // 4, len(self) - 1):
            gc.collect()
            return torch.tensor([float(private_bytes(os.getpid()))])
        return self.transform(self.nothing)


def private_bytes(pid: int) -> int:
    """Memory that is this process's own, without the ring's."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_bytes_a_batch(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        assert len(list(session.loader(Samples(BATCHES), batch_size=1))) == BATCHES
    size = sum(path.stat().st_size for path in (tmp_path / "run").glob("*.parquet"))
    assert size / BATCHES <= MOST_BYTES_A_BATCH


def test_what_was_taken_is_forgotten() -> None:
    """However long the epoch is, though batches are finished and taken in other orders."""
    assert held_bytes(20_000) < held_bytes(200) + 2000


def held_bytes(batches: int) -> int:
    """Memory that batches hold which were finished and taken."""
    tracemalloc.start()
    try:
        finished = Finished()
        for seq in range(batches):
            finished.add(seq ^ 1, 1, 0)
            if seq % 2:
                assert finished.take(seq) is not None
                assert finished.take(seq - 1) is not None
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_of_the_main_process(tmp_path: Path) -> None:
    held = []
    with Session(tmp_path / "run") as session:
        loader = session.loader(Samples(MANY), batch_size=1)
        tracemalloc.start()
        try:
            for step, _ in enumerate(loader, start=1):
                if step % (MANY // 4) == 0:
                    session.flush()
                    gc.collect()
                    held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes())
        finally:
            tracemalloc.stop()
    grown = (held[-1] - held[0]) / (MANY * 3 / 4)
    assert grown < 24, f"{grown:.1f} bytes a batch more"


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_of_a_worker(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.observe(DataLoader(Samples(MANY), batch_size=1, num_workers=1))  # type: ignore
        early, late = [int(batch.max()) for batch in loader if batch.max() > 0]
    assert (late - early) / (MANY * 3 / 4) < 64
