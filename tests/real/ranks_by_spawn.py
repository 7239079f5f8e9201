"""Two ranks by mp.spawn, each with a loader that has workers, as in PyTorch's own tutorials."""

import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def train(rank, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    data = TensorDataset(torch.zeros(320, 8))
    loader = DataLoader(data, batch_size=4, num_workers=2, sampler=DistributedSampler(data))
    for (batch,) in loader:
        dist.all_reduce(batch.sum())
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(train, args=(sys.argv[1],), nprocs=2)
