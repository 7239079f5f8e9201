"""Trains an agent on transitions from a replay buffer, each batch without repeats."""

import os
import time

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
CAPACITY, BATCH, STEP = 2_000_000, 256, 0.008


class Replay(Dataset):
    def __init__(self):
        self.seen, self.reward = torch.rand(CAPACITY, 8), torch.rand(CAPACITY)

    def __len__(self):
        return CAPACITY

    def __getitems__(self, drawn):
        drawn = torch.tensor(drawn)
        return self.seen[drawn], self.reward[drawn]


class Draws(Sampler):
    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        for _ in range(self.batches):
            yield torch.randperm(CAPACITY)[:BATCH].tolist()  # <- blame


def as_it_is(batch):
    return batch


def main():
    draws = Draws(max(8, int(200 * SCALE)))
    for batch in DataLoader(Replay(), batch_sampler=draws, num_workers=2, collate_fn=as_it_is):
        time.sleep(STEP)


if __name__ == "__main__":
    main()
