"""The tensors of a batch, whatever its shape: anywhere in tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from pipeprof.errors import MeasureError


def tensors(batch: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in `batch`, in order."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors(value)


def map_tensors(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return `batch` with `change` applied to each tensor; named tuples and mappings keep their type."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(value, change) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map_tensors(value, change) for value in batch)
    return batch


def size_bytes(batch: Any) -> int:
    """Return the bytes of the batch's tensors. Called for every batch, so it uses no generators."""
    if isinstance(batch, torch.Tensor):
        return batch.nbytes
    if isinstance(batch, (tuple, list)):
        return sum(map(size_bytes, batch))
    if isinstance(batch, Mapping):
        return sum(map(size_bytes, batch.values()))
    return 0


def samples(batch: Any) -> int:
    """Return the length of the first tensor's first dimension; 1 if there is none."""
    first = next(tensors(batch), None)
    return len(first) if first is not None and first.ndim else 1


def split(batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return inputs and targets: the first tensor of at least two dimensions, and the next tensor after it.

    Raises `MeasureError` if the batch holds nothing to train on.
    """
    parts = list(tensors(batch))
    for position, tensor in enumerate(parts):
        if tensor.ndim >= 2:
            targets = parts[position + 1] if position + 1 < len(parts) else None
            return tensor, targets
    raise MeasureError(
        f"the dataset's batches hold no inputs to train on (a {type(batch).__name__} without such a tensor)",
        "return (input, label) from the dataset, or set accelerator.kind=emulated, which trains nothing",
    )
