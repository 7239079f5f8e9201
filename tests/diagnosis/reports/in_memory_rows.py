"""Trains a small network on a table of short rows that fits in memory."""

import os
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
STEP = 0.0004


def main():
    rows = torch.rand(256_000, 12)
    labels = torch.randint(0, 2, (256_000,))
    loader = DataLoader(TensorDataset(rows, labels), batch_size=128, shuffle=True)
    left = int(11000 * SCALE)
    while left > 0:
        for x, y in loader:
            time.sleep(STEP)
            left -= 1
            if left <= 0:
                break


if __name__ == "__main__":
    main()
