"""Kinds of loaders, each a short snippet: what torch's DataLoader takes, and what people put into it.

A kind is a function without arguments that returns the keywords of a DataLoader. Classes stand at the top, so
that what is made of them can be pickled.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections import Counter, OrderedDict, UserList, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
)

N: Final = 12
Kind = Callable[[], dict[str, Any]]
Point = namedtuple("Point", "x y")


@dataclass
class Sample:
    image: torch.Tensor
    label: int = 0


class Numbers(Dataset):
    """Each sample is made by `make(index)`."""

    def __init__(self, make: Callable[[int], Any] = lambda index: index, n: int = N) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        if index >= self.n:
            raise IndexError(index)
        return self.make(index)


class Batched(Numbers):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.make(index) * 10 for index in indices]


class NoLength:
    def __getitem__(self, index: int) -> int:
        return index


class LengthRaises(Numbers):
    def __len__(self) -> int:
        raise NotImplementedError("not known")


class LengthIsHuge(Numbers):
    def __len__(self) -> int:
        return 2**70


class LengthIsNegative(Numbers):
    def __len__(self) -> int:
        return -3


class LengthIsText(Numbers):
    def __len__(self) -> int:
        return "twelve"  # type: ignore[return-value]


class LengthCounts(Numbers):
    """Its length changes each time that it is asked."""

    asked = 0

    def __len__(self) -> int:
        self.asked += 1
        return N + self.asked


class AttributeRaises(Numbers):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise KeyError(name)


class AttributeAnswers(Numbers):
    """Has every attribute that anybody asks for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: name


class ReduceRaises(Numbers):
    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


class ClassLies(Numbers):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return dict


class ClassRaises(Numbers):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")


class EqualRaises(Numbers):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    def __hash__(self) -> int:
        raise RuntimeError("cannot be hashed")


class BoolRaises(Numbers):
    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Slots:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = N

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:
        return index * 3


class Refuses(Numbers):
    """No attribute can be set on it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("make", "n"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Counts(IterableDataset):
    def __init__(self, n: int = N) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))


class Same(IterableDataset):
    """Each worker gives the same."""

    def __iter__(self) -> Iterator[int]:
        yield from range(5)


class Sized(Counts):
    def __len__(self) -> int:
        return 5  # torch warns of what comes beyond


class Own(IterableDataset):
    """Is its own iterator."""

    at = 0

    def __iter__(self) -> Own:
        self.at = 0
        return self

    def __next__(self) -> int:
        if self.at == 7:
            raise StopIteration
        self.at += 1
        return self.at


class Breaks(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the stream breaks")


class Resumes(Numbers):
    def state_dict(self) -> dict[str, int]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n = state["n"]


class SetsEpoch(Numbers):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Backwards(Sampler):
    def __init__(self, n: int = N) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.n - 1, -1, -1))

    def __len__(self) -> int:
        return self.n


class Endless(Sampler):
    """Has no length."""

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(itertools.cycle(range(N)), 30)


class SamplerBreaks(Sampler):
    def __iter__(self) -> Iterator[int]:
        yield 0
        yield 1
        raise RuntimeError("no more indices")

    def __len__(self) -> int:
        return 5


class Pins:
    def __init__(self, values: list[Any]) -> None:
        self.values = torch.tensor(values)

    def pin_memory(self) -> Pins:
        return self


class TwoArgumentsError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)


def fails_at(index: int, error: Callable[[], BaseException], bad: int = 5) -> int:
    if index == bad:
        raise error()
    return index


def failing(error: Callable[[], BaseException]) -> Kind:
    return lambda: {"dataset": Numbers(partial(fails_at, error=error)), "batch_size": 2}


def value_error() -> ValueError:
    return ValueError("bad sample")


def key_error() -> KeyError:
    return KeyError(("a", 1))


def two_arguments() -> TwoArgumentsError:
    return TwoArgumentsError(1, 2)


def stop() -> StopIteration:
    return StopIteration("stopped")


def drawn(index: int) -> Any:
    """Draw from all three states."""
    return torch.rand(2) + random.random() + float(np.random.rand()) + index


def warns(index: int) -> int:
    warnings.warn(f"sample {index % 3}", stacklevel=1)
    return index


def listed(index: int) -> Any:
    return [index] * (1 + index % 3)


def pinned(samples: list[Any]) -> Pins:
    return Pins(samples)


def as_is(samples: Any) -> Any:
    return samples


def breaks(samples: Any) -> Any:
    raise TypeError("cannot be collated")


def emptied(samples: Any) -> None:
    return None


def looped(samples: Any) -> Any:
    found: list[Any] = [len(samples)]
    found.append(tuple(samples))
    return found


def marked(samples: Any) -> Any:
    """Looks like what the profiler itself sends."""
    return ("pipeprof:batch", 0, 0, samples)


def init(worker: int) -> None:
    random.seed(worker)
    np.random.seed(worker)


def init_breaks(worker: int) -> None:
    raise OSError(f"worker {worker} cannot start")


def seen(index: int) -> str:
    """What a data set sees of its worker."""
    info = get_worker_info()
    return "none" if info is None else f"{info.id} of {info.num_workers}: {type(info.dataset).__name__}"


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sparse(index: int) -> Any:
    return torch.sparse_coo_tensor([[0], [1]], [float(index)], (2, 2))


def _map(make: Callable[[int], Any], **keywords: Any) -> Kind:
    return lambda: {"dataset": Numbers(make), "batch_size": 4, **keywords}


def _set(make: Callable[[], Any], **keywords: Any) -> Kind:
    return lambda: {"dataset": make(), "batch_size": 4, **keywords}


KINDS: Final[dict[str, Kind]] = {
    # data sets of torch and of Python
    "a list": _set(lambda: list(range(N))),
    "a tuple": _set(lambda: tuple(range(N))),
    "a range": _set(lambda: range(N)),
    "a string": _set(lambda: "abcdefgh"),
    "a dict of ints": _set(lambda: {index: index * 2 for index in range(N)}),
    "a UserList": _set(lambda: UserList(range(N))),
    "an array": _set(lambda: np.arange(N * 3).reshape(N, 3)),
    "a tensor": _set(lambda: torch.arange(N * 2.0).reshape(N, 2)),
    "TensorDataset": _set(lambda: TensorDataset(torch.arange(N * 1.0), torch.arange(N))),
    "StackDataset": _set(lambda: StackDataset(a=list(range(N)), b=list(range(N)))),
    "Subset": _set(lambda: Subset(Numbers(), [3, 1, 4, 1, 5])),
    "ConcatDataset": _set(lambda: ConcatDataset([Numbers(), Numbers(n=3)])),
    "ChainDataset": _set(lambda: ChainDataset([Counts(), Counts(4)])),
    "random_split": _set(lambda: random_split(Numbers(), [8, 4], generator())[0]),
    "an empty list": _set(list),
    "one sample": _set(lambda: [7]),
    "__getitems__": _set(Batched),
    "slots": _set(Slots),
    # samples of all sorts
    "ints": _map(int),
    "floats": _map(float),
    "strings": _map(str),
    "bytes": _map(lambda index: bytes([index])),
    "None": _map(lambda _: None),
    "bools": _map(lambda index: index % 2 == 0),
    "tensors": _map(lambda index: torch.full((2, 3), index)),
    "half tensors": _map(lambda index: torch.full((2,), index, dtype=torch.bfloat16)),
    "tensors of grad": _map(lambda index: torch.ones(2, requires_grad=True) * index),
    "sparse tensors": _map(sparse, collate_fn=as_is),
    "arrays": _map(lambda index: np.full((2, 2), index, np.uint8)),
    "dicts": _map(lambda index: {"x": index, "y": [index, {"z": torch.tensor(index)}]}),
    "ordered dicts": _map(lambda index: OrderedDict(b=index, a=str(index))),
    "named tuples": _map(lambda index: Point(index, torch.tensor([index]))),
    "dataclasses": _map(lambda index: Sample(torch.ones(1), index)),
    "dataclasses as they are": _map(lambda index: Sample(torch.ones(1), index), collate_fn=as_is),
    "deques": _map(lambda index: deque([index, index])),
    "unequal lists": _map(listed),
    "unequal tensors": _map(lambda index: torch.ones(index + 1)),
    "unequal tensors as they are": _map(lambda index: torch.ones(index + 1), collate_fn=as_is),
    "counters": _map(lambda index: Counter({"a": index}), collate_fn=as_is),
    "random samples": _map(drawn),
    "what a worker sees": _map(seen),
    "warnings": _map(warns),
    # streams
    "a stream": _set(Counts),
    "a stream without batches": _set(Counts, batch_size=None),
    "the same stream in each worker": _set(Same),
    "a stream longer than it says": _set(Sized),
    "a stream that is its own iterator": _set(Own),
    "a stream that breaks": _set(Breaks),
    "an empty stream": _set(lambda: Counts(0)),
    "a stream, drop_last": _set(Counts, drop_last=True),
    # samplers
    "shuffle": _set(Numbers, shuffle=True),
    "shuffle with a generator": lambda: {"dataset": Numbers(), "shuffle": True, "generator": generator()},
    "drop_last": _set(lambda: Numbers(n=11), drop_last=True),
    "without batches": _set(Numbers, batch_size=None),
    "without batches, collated": _set(Numbers, batch_size=None, collate_fn=str),
    "SequentialSampler": lambda: {"dataset": Numbers(), "sampler": SequentialSampler(range(N))},
    "RandomSampler": lambda: {"dataset": Numbers(), "sampler": RandomSampler(range(N), True, 20)},
    "WeightedRandomSampler": lambda: {"dataset": Numbers(), "sampler": WeightedRandomSampler([1, 2, 3], 9)},
    "SubsetRandomSampler": lambda: {"dataset": Numbers(), "sampler": SubsetRandomSampler([1, 5, 7])},
    "a list as sampler": lambda: {"dataset": Numbers(), "sampler": [2, 0, 1], "batch_size": 2},
    "a sampler of its own": lambda: {"dataset": Numbers(), "sampler": Backwards(), "batch_size": 5},
    "a sampler without length": lambda: {"dataset": Numbers(), "sampler": Endless(), "batch_size": 5},
    "a sampler that breaks": lambda: {"dataset": Numbers(), "sampler": SamplerBreaks(), "batch_size": 1},
    "a sampler of keys": lambda: {"dataset": {"a": 1, "b": 2}, "sampler": ["b", "a"], "batch_size": 2},
    "a sampler of arrays": lambda: {"dataset": Numbers(), "sampler": np.arange(5), "batch_size": 2},
    "a sampler of tensors": lambda: {"dataset": Numbers(), "sampler": torch.arange(5), "batch_size": 2},
    "a batch sampler": lambda: {"dataset": Numbers(), "batch_sampler": BatchSampler(Backwards(), 5, False)},
    "lists as batch sampler": lambda: {"dataset": Numbers(), "batch_sampler": [[0], [1, 2], [], [3]]},
    "batches of one array each": lambda: {"dataset": np.arange(N), "batch_sampler": [np.array([1, 2])]},
    "batch_size=1": _set(Numbers, batch_size=1),
    "a batch larger than all": _set(Numbers, batch_size=100),
    # collate and start
    "collate as it is": _set(Numbers, collate_fn=as_is),
    "collate breaks": _set(Numbers, collate_fn=breaks),
    "collate to None": _set(Numbers, collate_fn=emptied),
    "collate to lists": _set(Numbers, collate_fn=looped),
    "collate to what pins itself": _set(Numbers, collate_fn=pinned, pin_memory=True),
    "collate to our own mark": _set(Numbers, collate_fn=marked),
    "collate of partial": _set(Numbers, collate_fn=partial(default_collate)),
    "pin_memory": _set(Numbers, pin_memory=True),
    "worker_init_fn": _map(drawn, worker_init_fn=init),
    "worker_init_fn breaks": _set(Numbers, worker_init_fn=init_breaks),
    # errors
    "a sample that breaks": failing(value_error),
    "a KeyError": failing(key_error),
    "an error of two arguments": failing(two_arguments),
    "a StopIteration": failing(stop),
    "no such index": lambda: {"dataset": Numbers(), "sampler": [1, 50], "batch_size": 1},
    # hostile
    "no __len__": lambda: {"dataset": NoLength(), "sampler": [1, 2], "batch_size": 2},
    "__len__ raises": lambda: {"dataset": LengthRaises(), "sampler": [1, 2], "batch_size": 2},
    "__len__ is huge": lambda: {"dataset": LengthIsHuge(), "sampler": [1, 2], "batch_size": 2},
    "__len__ is negative": lambda: {"dataset": LengthIsNegative(), "sampler": [1, 2], "batch_size": 2},
    "__len__ is text": lambda: {"dataset": LengthIsText(), "sampler": [1, 2], "batch_size": 2},
    "__getattr__ raises KeyError": _set(AttributeRaises),
    "__getattr__ answers all": _set(AttributeAnswers),
    "__reduce__ raises": _set(ReduceRaises),
    "__class__ lies": _set(ClassLies),
    "__class__ raises": _set(ClassRaises),
    "__eq__ and __hash__ raise": _set(EqualRaises),
    "__bool__ and __repr__ raise": _set(BoolRaises),
    "__setattr__ raises": _set(Refuses),
    "state_dict": _set(Resumes),
    "set_epoch": _set(SetsEpoch),
}
"""By name. Lambdas in data sets need workers that are forked."""
