"""The loop that `peers.py` runs under each profiler: prints the CPU seconds and the seconds of a warm epoch.

python peers_loop.py ram0|ram2|jpeg BATCHES FOLDER [none|cProfile|torch.profiler|gpuprof]
"""

from __future__ import annotations

import cProfile
import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset[Any]):
    """Tensors in memory."""

    def __init__(self, length: int) -> None:
        self.rows, self.length = torch.zeros(1024, 8), length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.rows[index % 1024]


class Pictures(Dataset[Any]):
    """JPEG files, decoded and shrunk."""

    def __init__(self, folder: Path, length: int) -> None:
        self.paths, self.length = sorted(folder.glob("*.jpg")), length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.paths[index % len(self.paths)]) as picture:
            shrunk = picture.convert("RGB").resize((32, 32))
        return torch.frombuffer(bytearray(shrunk.tobytes()), dtype=torch.uint8).float()


def inside(name: str) -> Any:
    """Return the context of a profiler that is entered in the script itself."""
    if name == "cProfile":
        return cProfile.Profile()
    if name == "torch.profiler":
        return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    if name == "gpuprof":
        import gpuprof

        return gpuprof.profile("peers")
    return nullcontext()


def cpu_s() -> float:
    """Return the CPU time of this process and of the workers that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    """Train for an epoch to warm up, and for one that is counted."""
    kind, batches, folder, tool = (*sys.argv[1:], "none")[:4]
    torch.set_num_threads(1)
    size, workers = (32, 2) if kind == "jpeg" else (64, 2 if kind == "ram2" else 0)
    length = int(batches) * size
    data = Pictures(Path(folder), length) if kind == "jpeg" else Rows(length)
    loader = DataLoader(data, size, num_workers=workers)
    model = torch.nn.Linear(32 * 32 * 3 if kind == "jpeg" else 8, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with inside(tool):
        for _ in range(2):
            began_s, before_s = time.monotonic(), cpu_s()
            for batch in loader:
                optimizer.zero_grad()
                model(batch).sum().backward()
                optimizer.step()
            figures = {"cpu_s": cpu_s() - before_s, "wall_s": time.monotonic() - began_s}
    print("peers:" + json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
