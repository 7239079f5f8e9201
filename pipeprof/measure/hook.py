"""The one place where pipeprof reaches into torch: `DataLoader._get_iterator`, and nothing else private.

While the original runs, the loader's public parts are our proxies, put into its `__dict__` and taken out
again; the iterator that comes back gets a subclass of its own class that overrides only `__next__`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader

PRIVATE: Final = ("_get_iterator",)
"""Every private name of torch that pipeprof touches; last seen in torch 2.15."""


class Observer(Protocol):
    """Watches one loader."""

    def iterate(self, loader: DataLoader[Any], make: Callable[[], Any]) -> Any:
        """Let `make` build the loader's iterator, and watch it."""
        ...


class Watch(Protocol):
    """Watches one iterator."""

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """Call `original(iterator)` between two readings of the clock."""
        ...


_observers: WeakKeyDictionary[Any, Observer] = WeakKeyDictionary()
_watched: dict[type, type] = {}


def observe(loader: DataLoader[Any], observer: Observer) -> bool:
    """Have `observer` see each iterator of `loader`. False where this torch has no such seam."""
    found = False
    for cls in type(loader).__mro__:
        if "_get_iterator" in cls.__dict__:
            _hook(cls)
            found = True
    _observers[loader] = observer
    return found


def observer_of(loader: DataLoader[Any]) -> Observer | None:
    """Who watches `loader`."""
    return _observers.get(loader)


def forget(loader: DataLoader[Any]) -> None:
    """Leave `loader` alone from its next iterator on."""
    _observers.pop(loader, None)


def _hook(cls: type) -> None:
    original = cls.__dict__["_get_iterator"]
    if hasattr(original, "_pipeprof_original"):
        return

    @functools.wraps(original)
    def _get_iterator(self: DataLoader[Any]) -> Any:
        observer = observer_of(self)
        if observer is None:
            return original(self)
        return observer.iterate(self, lambda: original(self))

    _get_iterator._pipeprof_original = original  # type: ignore[attr-defined]
    cls._get_iterator = _get_iterator  # type: ignore[attr-defined]


@contextmanager
def disguised(loader: DataLoader[Any], parts: Mapping[str, Any]) -> Iterator[None]:
    """The loader with `parts` in place of its own attributes, for as long as an iterator is being made."""
    before = {name: loader.__dict__[name] for name in parts if name in loader.__dict__}
    loader.__dict__.update(parts)  # past __setattr__, which forbids what we take back at once
    try:
        yield
    finally:
        for name in parts:
            loader.__dict__.pop(name, None)
        loader.__dict__.update(before)


def watch(iterator: Any, watcher: Watch) -> bool:
    """Put `watcher` around each `next(iterator)`. False where the iterator's class cannot be changed."""
    try:
        iterator.__dict__["_pipeprof_watch"] = watcher
        iterator.__class__ = _watched_class(type(iterator))
    except (AttributeError, TypeError):
        return False
    return True


def _watched_class(cls: type) -> type:
    if cls not in _watched:
        original = cls.__next__  # type: ignore[attr-defined]

        def __next__(self: Any) -> Any:
            return self._pipeprof_watch.next(original, self)

        names = {"__next__": __next__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _watched[cls] = type(cls.__name__, (cls,), names)
    return _watched[cls]
