"""A notebook's user runs the cell of the README a second time."""

import torch
from torch.utils.data import DataLoader, TensorDataset

import pipeprof

loader = DataLoader(TensorDataset(torch.zeros(160, 8)), batch_size=4)
for _ in range(2):
    with pipeprof.profile(loader, out="runs/mine") as observed:
        print(sum(1 for batch in observed))
