"""Data sets, samplers and collate functions of every kind, at module level so that spawn can pickle them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from pipeprof import stage


class Squares(Dataset[Any]):
    """Random numbers go in, so that a disturbed random state shows in the batches."""

    def __init__(self, length: int = 40) -> None:
        self.length = length
        self.told = -1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float]:
        with stage("mine"):
            noise = torch.rand(2)
        return noise + index, index * index, random.random() + float(np.random.rand()) + self.told


class ManyAtOnce(Squares):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Stream(IterableDataset[Any]):
    def __init__(self, length: int = 40) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        start, step = (info.id, info.num_workers) if info else (0, 1)
        for index in range(start, self.length, step):
            yield torch.rand(2) + index, index


class UnevenStream(Stream):
    """Workers that end at different times."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        for index in range(3 + 7 * (info.id if info else 1)):
            yield torch.tensor([index, info.id if info else 0])


class OwnIterator(Stream):
    """An iterable data set that is its own iterator."""

    def __iter__(self) -> OwnIterator:
        self.at = 0
        return self

    def __next__(self) -> Any:
        if self.at >= 8:
            raise StopIteration
        self.at += 1
        return torch.tensor([self.at])


class Broken(Squares):
    def __getitem__(self, index: int) -> Any:
        if index == 13:
            raise ValueError("sample 13 is broken")
        return super().__getitem__(index)


class BrokenStream(Stream):
    def __iter__(self) -> Iterator[Any]:
        for index, sample in enumerate(super().__iter__()):
            if index == 5:
                raise ValueError("item 5 is broken")
            yield sample


class Slow(Squares):
    def __getitem__(self, index: int) -> Any:
        time.sleep(0.05 if index < 4 else 0.001)
        return super().__getitem__(index)


class Backwards(Sampler[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length - 1, -1, -1))

    def __len__(self) -> int:
        return self.length


class StatefulSquares(Squares):
    """A map-style set with a state of its own, as torchdata's Stateful protocol wants it."""

    def __init__(self, length: int = 40) -> None:
        super().__init__(length)
        self.served = 0

    def __getitem__(self, index: int) -> Any:
        self.served += 1
        return super().__getitem__(index)

    def state_dict(self) -> dict[str, Any]:
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.served = state["served"]


class StatefulStream(Stream):
    """An iterable one, whose iterator is itself."""

    def __init__(self, length: int = 40) -> None:
        super().__init__(length)
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        while self.at < self.length:
            self.at += 1
            yield torch.tensor([self.at - 1])
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def collate_tagged(samples: list[Any]) -> dict[str, Any]:
    return {"x": torch.stack([s[0] for s in samples]), "noise": random.random(), "n": len(samples)}


def tell_dataset(worker: int) -> None:
    """What user code does: it finds its own data set in the worker's info."""
    info = get_worker_info()
    assert info is not None
    assert type(info.dataset) is Squares, type(info.dataset)
    info.dataset.told = worker


def two_by_two(length: int) -> BatchSampler:
    return BatchSampler(Backwards(length), 2, drop_last=False)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "map": (Squares, {"batch_size": 4}),
    "map, shuffled": (Squares, {"batch_size": 4, "shuffle": True}),
    "map, last dropped": (Squares, {"batch_size": 7, "drop_last": True}),
    "__getitems__": (ManyAtOnce, {"batch_size": 4}),
    "map, batch_size=None": (Squares, {"batch_size": None}),
    "map, batch_size=None, batches from the sampler": (
        ManyAtOnce,
        {"batch_size": None, "sampler": [3, 1, 4, 1, 5]},
    ),
    "custom sampler": (Squares, {"batch_size": 4, "sampler": Backwards(40)}),
    "custom batch sampler": (Squares, {"batch_sampler": two_by_two(40)}),
    "custom collate": (Squares, {"batch_size": 4, "collate_fn": collate_tagged}),
    "iterable": (Stream, {"batch_size": 4}),
    "iterable, last dropped": (Stream, {"batch_size": 7, "drop_last": True}),
    "iterable, batch_size=None": (Stream, {"batch_size": None}),
    "iterable, workers end at different times": (UnevenStream, {"batch_size": 2}),
    "iterable, uneven, batch_size=None": (UnevenStream, {"batch_size": None}),
    "iterable, its own iterator": (OwnIterator, {"batch_size": 3}),
}
WITH_WORKERS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "2 workers": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
    "pinned": {"num_workers": 2, "pin_memory": True},
}


class PlainSession:
    """Hands out loaders that nobody watches."""

    def loader(self, dataset: Any, **arguments: Any) -> DataLoader[Any]:
        return DataLoader(dataset, **arguments)
