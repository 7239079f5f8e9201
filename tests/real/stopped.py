"""What `timeout`, SLURM and docker stop: a script that trains until it is told to end."""

import os
import signal

import torch
from torch.utils.data import DataLoader, TensorDataset

loader = DataLoader(TensorDataset(torch.zeros(400, 8)), batch_size=4)
for epoch in range(1000):
    for _ in loader:
        torch.randn(64, 64) @ torch.randn(64, 64)
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGTERM)
