"""Trains with class-balanced draws from a large table, some hundred samples an epoch, each at most once."""

import os
import time

import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
SAMPLES, STEP = 8_000_000, 0.01


class Table(Dataset):
    def __init__(self):
        self.values = torch.rand(SAMPLES)

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        return self.values[i]


def main():
    weights = torch.rand(SAMPLES, dtype=torch.double) + 0.01
    sampler = WeightedRandomSampler(weights, num_samples=640, replacement=False)
    loader = DataLoader(Table(), batch_size=32, sampler=sampler, num_workers=2, persistent_workers=True)
    for epoch in range(max(1, int(28 * SCALE))):
        for batch in loader:
            time.sleep(STEP)


if __name__ == "__main__":
    main()
