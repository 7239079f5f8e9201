"""Facts about a data set, derived from its code without running it.

Attributes are looked up without `__getattr__` and properties; for functions, the names that their code
mentions are read. Anything that this does not show is None.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from inspect import getattr_static
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

from torch.utils.data import IterableDataset, Subset

SPLITTERS: Final = frozenset({"get_worker_info", "worker_info", "WorkerInfo"})
"""Names mentioned by code that gives each worker its part of a stream."""
_MOST_FUNCTIONS: Final = 500
_DEEPEST: Final = 4
"""Number of calls and attributes away from the data set that are followed."""


def has_set_epoch(dataset: Any) -> bool | None:
    """Return True if the data set has a method that is called for each new epoch."""
    try:
        return callable(getattr_static(dataset, "set_epoch", None))
    except Exception:  # a class that is made in an unusual way
        return None


_LISTS: Final = ("samples", "imgs", "files", "paths", "image_paths", "filenames")
"""Attributes in which data sets keep the files of their samples, torchvision's folders among them."""


def file_of(dataset: Any, index: int, samples: int | None) -> str | None:
    """Return the path of a sample's file, if the data set lists one for each of its `samples`.

    For a `Subset`, it is the file in the data set below.
    """
    try:
        held = object.__getattribute__(dataset, "__dict__")
        if type(dataset) is Subset:
            below, indices = held["dataset"], held["indices"]
            return file_of(below, int(indices[index]), len(below))
        lists = (held.get(name) for name in _LISTS)
        known = next((each for each in lists if type(each) in (list, tuple) and len(each) == samples), None)
        if known is None or not 0 <= index < len(known):
            return None
        path = known[index][0] if type(known[index]) in (list, tuple) else known[index]
        return os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    except Exception:  # objects of the user's may be of any kind
        return None


def splits_stream(dataset: Any, worker_init: Any = None) -> bool | None:
    """Return whether the code of an iterable data set asks which worker it runs in.

    False if it does not: each worker then gives the same samples. None for other data sets, for code that is
    not Python, and if a `worker_init_fn` may handle it in its own way.
    """
    try:
        if not isinstance(dataset, IterableDataset):
            return None
        code = list(_codes(dataset))
        if any(not SPLITTERS.isdisjoint(_names(each)) for each in (*code, *_codes(worker_init))):
            return True
    except Exception:  # objects of the user's may be of any kind
        return None
    return False if code and worker_init is None else None


def _names(code: CodeType) -> Iterator[str]:
    """Give the names that a function's code mentions, and those of the functions inside it."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def _codes(start: Any) -> Iterator[CodeType]:
    """Give the code of `start`: a function, or an object's methods, with what they call and it holds."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(start, 0)]
    while waiting and len(seen) < _MOST_FUNCTIONS:
        part, depth = waiting.pop(0)
        if id(part) in seen or depth > _DEEPEST:
            continue
        seen.add(id(part))
        if type(part) in (list, tuple):
            waiting += [(each, depth) for each in part[:_MOST_FUNCTIONS]]
            continue
        function = part.__func__ if type(part) is MethodType else part
        if type(function) is FunctionType:
            yield function.__code__
            waiting += [(each, depth + 1) for each in _called(function)]
        else:
            waiting += [(each, depth + 1) for each in _held(part)]


def _called(function: FunctionType) -> list[Any]:
    """List the functions of its module that a function mentions."""
    known = (function.__globals__.get(name) for name in _names(function.__code__))
    return [each for each in known if type(each) is FunctionType]


def _held(part: Any) -> list[Any]:
    """List the methods of an object's own class, and its attributes that may have code, without data."""
    kind = type(part)
    if kind.__module__.partition(".")[0] in _NO_STREAMS:
        return []
    functions = list(_methods(kind))
    try:
        held = list(object.__getattribute__(part, "__dict__").values())
    except AttributeError:  # it has slots
        held = []
    return functions + held


def _methods(kind: type) -> Iterator[FunctionType]:
    """Give the methods that an object of a class has, including an overridden one if `super` is mentioned."""
    hidden: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in _NO_STREAMS:
            continue
        for name, attribute in vars(base).items():
            if type(attribute) not in _METHODS or name in hidden:
                continue
            function = getattr(attribute, "__func__", attribute)
            if type(function) is FunctionType:
                yield function
                if "super" not in _names(function.__code__):
                    hidden.add(name)


_METHODS: Final = (FunctionType, staticmethod, classmethod)
_NO_STREAMS: Final = frozenset(
    {"builtins", "torch", "numpy", "typing", "abc", "collections", "functools", "pathlib"}
)
"""Packages whose objects hold data, and whose base classes split nothing."""
