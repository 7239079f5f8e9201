"""Trains on point clouds of a drive; pairs of near points in the frames around are looked up per sample."""

import os
import time

import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
FRAMES, POINTS, AROUND, STEP = 48, 1250, 3, 0.03


class Drive(Dataset):
    def __init__(self):
        self.clouds = torch.rand(FRAMES, POINTS, 3) * torch.tensor([80.0, 80.0, 4.0])

    def __len__(self):
        return 20_000

    def nearest(self, cloud, other):
        apart = (cloud[:, None] - other[None]).square().sum(-1)  # <- blame
        return apart.argmin(1)  # <- blame

    def __getitem__(self, i):
        cloud = self.clouds[i % FRAMES]
        others = [self.clouds[(i + k) % FRAMES] for k in range(1, AROUND + 1)]
        return cloud, torch.stack([self.nearest(cloud, other) for other in others])


def main():
    loader = DataLoader(Drive(), batch_size=4, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 90 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
