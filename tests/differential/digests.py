"""What a loader gave, as text: batches bit for bit, errors, warnings, and the random states after it."""

from __future__ import annotations

import gc
import hashlib
import io
import pickle
import random
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader

from tests.differential.kinds import Kind
from tests.differential.run_scripts import plain as without_addresses

Observe = Callable[[dict[str, Any]], AbstractContextManager[Any]]
"""Makes a loader of keywords, which is observed for as long as the context lasts."""
MOST_BATCHES: Final = 40


def bits(value: Any) -> str:
    """Return a batch as text that tells any two batches apart."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            return f"sparse {bits(value.to_dense())}"
        plain = (
            value.detach().contiguous().view(torch.uint8) if value.numel() and value.dim() else value.detach()
        )
        data = hashlib.sha256(plain.reshape(-1).numpy().tobytes()).hexdigest()
        return f"{value.dtype}{tuple(value.shape)}{value.requires_grad}{data}"
    if isinstance(value, np.ndarray):
        return f"array {value.dtype}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, Mapping):
        return (
            f"{type(value).__name__}{{{', '.join(f'{key!r}: {bits(each)}' for key, each in value.items())}}}"
        )
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(bits, value))})"
    return f"{type(value).__name__} {vars(value)!r}" if hasattr(value, "__dict__") else f"{value!r}"


def random_states() -> str:
    """Return a digest of the three random states."""
    states = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())
    return hashlib.sha256(pickle.dumps(states)).hexdigest()[:16]


def seed() -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)


def shown(error: BaseException) -> list[str]:
    """Return an error's type and text, and those of the errors that it came from."""
    lines = []
    seen: BaseException | None = error
    while seen is not None and len(lines) < 10:
        text = str(seen) if not isinstance(seen, KeyError) else str(seen.args[0]) if seen.args else ""
        lines.append(f"{type(seen).__name__}: {without_addresses(text)}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return lines


def digest(kind: Kind, observe: Observe, workers: int) -> list[str]:
    """Return what two epochs of a loader come to."""
    seed()
    lines = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            keywords = {**kind(), "num_workers": workers}
            with observe(keywords) as loader:
                lines += _epochs(loader)
                lines += _attributes(loader)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            lines += [f"raised {line}" for line in shown(error)]
            del error
    said = {f"warned {each.category.__name__}: {without_addresses(str(each.message))}" for each in warned}
    lines += sorted(line for line in said if not any(each in line for each in _UNLIKE))
    lines.append(f"states {random_states()}")
    if workers:
        gc.collect()  # errors hold iterators, and those their workers
    return lines


_UNLIKE: Final = ("Triggered internally", "is multi-threaded, use of fork")
"""Warnings that torch gives once in a process, and Python from 3.12 on where a process has a thread, such as
ours: of a fork in multiprocessing nobody sees it who has not asked for warnings of deprecated things."""


def _epochs(loader: Any) -> list[str]:
    lines = []
    for epoch in range(2):
        try:
            for number, batch in enumerate(loader):
                lines.append(f"{epoch}.{number} {bits(batch)}")
                if number == MOST_BATCHES:
                    break
        except Exception as error:
            lines += [f"{epoch} raised {line}" for line in shown(error)]
            error.__traceback__ = None  # it holds the iterator
    return lines


def _attributes(loader: Any) -> list[str]:
    """What a user sees of a loader after it was iterated; observing must have left nothing in it."""
    lines = []
    try:
        lines.append(f"length {len(loader)}")
    except Exception as error:
        lines.append(f"length {shown(error)}")
    kept = {k: v for k, v in vars(loader).items() if k not in ("out", "detail", "session", *_GIVEN)}
    lines.append(f"attributes {sorted(kept)} {[type(value).__name__ for _, value in sorted(kept.items())]}")
    try:
        plain = DataLoader.__new__(DataLoader)
        plain.__dict__.update(kept)
        lines.append(f"pickle {_pickled(plain)}")
    except Exception as error:
        lines.append(f"no pickle: {type(error).__name__}")
    return lines


def _pickled(value: Any) -> str:
    """Return a digest of a value's pickle, in which tensors stand by their values: torch's have addresses."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.reducer_override = _by_value  # type: ignore[method-assign]
    pickler.dump(value)
    return hashlib.sha256(file.getvalue()).hexdigest()[:16]


def _by_value(value: Any) -> Any:
    return (str, (bits(value),)) if isinstance(value, torch.Tensor) else NotImplemented


_GIVEN: Final = ("summary", "verdict", "recent", "save")
"""What `profile` gives a loader for as long as its block lasts."""
