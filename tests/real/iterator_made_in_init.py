"""timm's MultiEpochsDataLoader and YOLOv5's InfiniteDataLoader make their one iterator in __init__."""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

import pipeprof


class Forever:
    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from iter(self.sampler)


class MultiEpochs(DataLoader):
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        self._DataLoader__initialized = False
        self.batch_sampler = Forever(self.batch_sampler)
        self._DataLoader__initialized = True
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


loader = MultiEpochs(TensorDataset(torch.zeros(160, 8)), batch_size=4, num_workers=2)
if "profile" in sys.argv:
    with pipeprof.profile(loader, out="out") as observed:
        print(sum(1 for _ in range(2) for _ in observed), observed.summary()["steps"])
else:
    print(sum(1 for _ in range(2) for _ in loader), "batches")
