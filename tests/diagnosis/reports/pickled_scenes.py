"""Trains on windows of satellite scenes, some hundred an epoch, from an index of all that there are."""

import multiprocessing
import os
import time
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
WINDOWS, STEP = 100_000, 0.02


@dataclass
class Window:
    scene: str
    bounds: tuple
    days: list
    cloudy: dict


class Scenes(Dataset):
    def __init__(self):
        self.windows = [
            Window(f"S2/{k // 100:05d}.tif", (k, k + 1.5, k + 2, k + 3.5), [k, k + 5], {"share": k / 7})
            for k in range(WINDOWS)
        ]
        self.pixels = torch.rand(16, 4, 64, 64)

    def __len__(self):
        return WINDOWS

    def __getitem__(self, i):
        window = self.windows[i]
        return self.pixels[i % 16], torch.tensor(window.bounds)


def main():
    start = multiprocessing.get_context("forkserver")  # threads of other libraries would not survive a fork
    start.set_forkserver_preload(["torch"])
    scenes = Scenes()
    draws = RandomSampler(scenes, num_samples=480)
    loader = DataLoader(scenes, batch_size=8, sampler=draws, num_workers=2, multiprocessing_context=start)
    for _epoch in range(max(2, int(4 * SCALE))):
        for batch in loader:
            time.sleep(STEP)


if __name__ == "__main__":
    main()
