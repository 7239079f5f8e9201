"""Trains for a number of steps, asking the loader for a batch in each."""

import os
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
STEP = 0.03


class Waves(Dataset):
    def __len__(self):
        return 50_000

    def __getitem__(self, i):
        t = np.linspace(0, 40, 4000)
        return torch.from_numpy(np.sin(t * (1 + i % 7)).astype(np.float32))


def main():
    loader = DataLoader(Waves(), batch_size=16, shuffle=True, num_workers=2)
    for step in range(max(3, int(110 * SCALE))):
        batch = next(iter(loader))  # <- blame
        time.sleep(STEP)


if __name__ == "__main__":
    main()
