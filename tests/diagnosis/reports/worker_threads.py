"""Trains on synthetic scenes that the workers grade, with as many threads as the server has cores."""

import os
import time

import torch
from torch.utils.data import DataLoader, Dataset

SCALE = float(os.environ.get("CASES_SCALE", "1"))
CORES_OF_THE_SERVER, STEP = 16, 0.02


def all_cores(worker):
    torch.set_num_threads(CORES_OF_THE_SERVER)  # <- blame


class Scenes(Dataset):
    def __len__(self):
        return 50_000

    def __getitem__(self, i):
        scene = torch.rand(3, 256, 256)
        for _ in range(12):  # tone curves
            scene = torch.tanh(scene * 1.01 + 0.1)  # <- blame
        return scene[:, ::4, ::4].contiguous()


def main():
    torch.set_num_threads(1)
    loader = DataLoader(Scenes(), batch_size=8, shuffle=True, num_workers=2, worker_init_fn=all_cores)
    for step, batch in enumerate(loader):
        if step >= 260 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
