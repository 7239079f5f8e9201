"""Launchers such as Lightning's for ddp put RANK and WORLD_SIZE into os.environ inside the traced script."""

import os

import torch
from torch.utils.data import DataLoader, TensorDataset

os.environ.update(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
for _ in DataLoader(TensorDataset(torch.zeros(160, 8)), batch_size=4):
    torch.zeros(64, 64) @ torch.zeros(64, 64)
