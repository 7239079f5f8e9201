"""A fully sharded script that knows nothing of pipeprof. One rank's samples take longer to make.

Its argument is the version of FSDP. It ends by saying how many collectives it has made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Samples(Dataset[Any]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 320

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(self.seconds)
        return torch.full((64,), float(index)), index % 4


def sharded(version: str) -> torch.nn.Module:
    layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    if version == "1":
        return FullyShardedDataParallel(layers, device_id=torch.device("cpu"))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    model: torch.nn.Module = fully_shard(layers, mesh=mesh)
    return model


def train(version: str, make_loader: Callable[..., Any] = DataLoader) -> int:
    dist.init_process_group("gloo")
    data = Samples(0.015 if dist.get_rank() == 1 else 0.0005)
    loader = make_loader(data, batch_size=4, num_workers=1, sampler=DistributedSampler(data))
    model = sharded(version)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, labels in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    collectives = dist.distributed_c10d._get_default_group()._get_sequence_number_for_group()
    dist.destroy_process_group()
    return int(collectives)


if __name__ == "__main__":
    print(f"collectives {train(sys.argv[1])}")
