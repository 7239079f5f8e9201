"""Time that is nobody's loop: between two cells of a notebook, two loaders, or two epochs without workers."""

import sys
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

how = sys.argv[1]
data = TensorDataset(torch.zeros(200, 8))


def epoch(loader):
    for _ in loader:
        time.sleep(0.002)


if how == "cells":  # somebody reads the loss in between
    loader = DataLoader(data, batch_size=4)
    epoch(loader)
    time.sleep(1)
    epoch(loader)
elif how == "loaders":  # a pass for statistics, then set-up: sentence-transformers' fit() does this
    mean = sum(x.sum() for (x,) in DataLoader(data, batch_size=4))
    time.sleep(1)
    epoch(DataLoader(data, batch_size=4))
elif how == "anew":
    # A loader for each epoch. Slow cores take 4 ms for a batch, which is little beside a step.
    many = TensorDataset(torch.zeros(1280, 8))
    for _ in range(10):
        for _ in DataLoader(many, batch_size=128, shuffle=True):
            time.sleep(0.02)
else:  # no workers: nothing starts
    loader = DataLoader(data, batch_size=4)
    for _ in range(3):
        epoch(loader)
