"""Ranks by mp.spawn (PyTorch's imagenet example), by fork (notebook launchers), and by a launcher script."""

import subprocess
import sys

import torch
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, TensorDataset


def train(rank=0):
    loader = DataLoader(TensorDataset(torch.zeros(160, 8)), batch_size=4, num_workers=1)
    print("rank", rank, "took", sum(1 for _ in loader), "batches", flush=True)


if __name__ == "__main__":
    how = sys.argv[1]
    if how == "child":
        train()
    elif how == "subprocess":
        subprocess.run([sys.executable, __file__, "child"], check=True)
    else:
        mp.start_processes(train, nprocs=2, start_method=how)
