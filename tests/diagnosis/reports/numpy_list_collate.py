"""Trains on image patches that are in memory as NumPy arrays, with a collate function of its own."""

import os
import time
import warnings

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
STEP = 0.01


class Patches(Dataset):
    def __init__(self):
        self.pixels = np.random.default_rng(7).random((256, 3, 80, 80), dtype=np.float32)

    def __len__(self):
        return 64_000

    def __getitem__(self, i):
        return self.pixels[i % 256], i % 10


def to_batch(samples):
    images, labels = zip(*samples)
    return torch.tensor(list(images), dtype=torch.float32), torch.tensor(labels)  # <- blame


def main():
    loader = DataLoader(Patches(), batch_size=32, shuffle=True, num_workers=2, collate_fn=to_batch)
    for step, batch in enumerate(loader):
        if step >= 220 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
