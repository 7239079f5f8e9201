"""Trains on camera frames that are in memory as bytes; they leave the data set as normalised floats."""

import os
import time

import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
STEP = 0.008
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Frames(Dataset):
    def __init__(self):
        self.frames = torch.randint(0, 256, (64, 3, 384, 384), dtype=torch.uint8)

    def __len__(self):
        return 100_000

    def __getitem__(self, i):
        return (self.frames[i % 64].float() / 255 - MEAN) / STD  # <- blame


def main():
    loader = DataLoader(Frames(), batch_size=16, shuffle=True, num_workers=2)
    staging = torch.empty(16, 3, 384, 384)
    for step, batch in enumerate(loader):
        if step >= 260 * SCALE:
            break
        staging.copy_(batch)  # stands for the copy to the device
        time.sleep(STEP)


if __name__ == "__main__":
    main()
