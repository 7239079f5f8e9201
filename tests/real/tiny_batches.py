"""Batches of 128 bytes: the way from worker to main is a pipe, a wake-up and unpickling, and not bytes."""

import time

import torch
from torch.utils.data import DataLoader, Dataset


class Tiny(Dataset):
    def __len__(self):
        return 1600

    def __getitem__(self, index):
        return torch.zeros(8)


if __name__ == "__main__":
    for _ in DataLoader(Tiny(), batch_size=4, num_workers=2):
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
