"""os._exit at the end of a script, as some launchers and RL frameworks do to get past hanging threads."""

import os
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

for (_,) in DataLoader(TensorDataset(torch.zeros(256, 8)), batch_size=4):
    time.sleep(0.002)
os._exit(3)
