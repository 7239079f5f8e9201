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
"""Every private name of torch, and of torchdata's subclass of it, that pipeprof touches; seen in torch 2.15.

Without it a loader works as ever and is not observed."""
_OURS: Final = ("torch.", "torchdata.")
"""Whose `_get_iterator` is known; a user's override calls one of these, or its batches are not observed."""


class Observer(Protocol):
    """Watches one loader."""

    def iterate(self, loader: DataLoader[Any], make: Callable[[], Any]) -> Any:
        """Let `make` build the loader's iterator, and watch it."""
        ...


class Watcher(Protocol):
    """Watches one iterator."""

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """Call `original(iterator)` between two readings of the clock."""
        ...


_observers: Final[WeakKeyDictionary[Any, Observer]] = WeakKeyDictionary()
_for_all: Final[list[Callable[[DataLoader[Any]], Observer]]] = []
_watched: Final[dict[type, type]] = {}


def observe(loader: DataLoader[Any], observer: Observer) -> bool:
    """Have `observer` see each iterator of `loader`. False where this torch has no such seam."""
    _observers[loader] = observer
    return any([_hook(cls) for cls in type(loader).__mro__])


def observe_all(make_observer: Callable[[DataLoader[Any]], Observer]) -> None:
    """Have every DataLoader of this process observed, those of classes to come included."""
    _for_all.append(make_observer)
    for cls in _with_subclasses(DataLoader):
        _hook(cls)
    original = DataLoader.__init_subclass__

    def __init_subclass__(cls: type, **options: Any) -> None:  # noqa: N807
        original(**options)
        _hook(cls)

    DataLoader.__init_subclass__ = classmethod(__init_subclass__)  # type: ignore[assignment]


def observe_no_more() -> None:
    """Leave the loaders alone that no one has named."""
    _for_all.clear()
    if "__init_subclass__" in DataLoader.__dict__:
        del DataLoader.__init_subclass__


def observer_of(loader: DataLoader[Any]) -> Observer | None:
    """Who watches `loader`."""
    return _observers.get(loader)


def forget(loader: DataLoader[Any]) -> None:
    """Leave `loader` alone from its next iterator on."""
    _observers.pop(loader, None)


def _with_subclasses(cls: type) -> Iterator[type]:
    yield cls
    for below in cls.__subclasses__():
        yield from _with_subclasses(below)


def _hook(cls: type) -> bool:
    original = cls.__dict__.get("_get_iterator")
    if original is None or not f"{cls.__module__}.".startswith(_OURS):
        return False
    if hasattr(original, "_pipeprof_original"):
        return True

    @functools.wraps(original)
    def _get_iterator(self: DataLoader[Any]) -> Any:
        observer = _observers.get(self)
        if observer is None and _for_all:
            observer = _observers[self] = _for_all[-1](self)
        if observer is None:
            return original(self)
        return observer.iterate(self, lambda: original(self))

    _get_iterator._pipeprof_original = original  # type: ignore[attr-defined]
    cls._get_iterator = _get_iterator  # type: ignore[attr-defined]
    return True


@contextmanager
def disguised(loader: DataLoader[Any], parts: Mapping[str, Any]) -> Iterator[None]:
    """The loader with `parts` in place of its own attributes, for as long as an iterator is being made."""
    before = {name: loader.__dict__[name] for name in parts if name in loader.__dict__}
    loader.__dict__.update(parts)  # past __setattr__, which forbids what is taken back at once
    try:
        yield
    finally:
        for name in parts:
            loader.__dict__.pop(name, None)
        loader.__dict__.update(before)


def watch(iterator: Any, watcher: Watcher) -> bool:
    """Put `watcher` around each `next(iterator)`. False where the iterator's class cannot be changed."""
    try:
        iterator.__class__ = _watched_class(type(iterator))
        iterator.__dict__["_pipeprof_watch"] = watcher
    except (AttributeError, TypeError):
        return False
    return True


def _watched_class(cls: type) -> type:
    if cls not in _watched:
        original = cls.__next__  # type: ignore[attr-defined]

        def next_watched(self: Any) -> Any:
            return self._pipeprof_watch.next(original, self)

        names = {"__next__": next_watched, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _watched[cls] = type(cls.__name__, (cls,), names)
    return _watched[cls]
