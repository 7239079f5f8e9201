"""A loader whose `_get_iterator` makes the iterator itself, as litdata's StreamingDataLoader does."""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import pipeprof


class Streaming(DataLoader):
    def _get_iterator(self):
        return _MultiProcessingDataLoaderIter(self)


loader = Streaming(TensorDataset(torch.zeros(160, 8)), batch_size=4, num_workers=2)
if "profile" in sys.argv:
    with pipeprof.profile(loader, out="out") as observed:
        print(sum(1 for _ in observed), observed.summary()["steps"])
else:
    print(sum(1 for _ in loader), "batches")
