"""The one place where pipeprof reaches into torch's private parts, each named in a list here.

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
"""Every private name of torch's loader, and of torchdata's subclass of it, that pipeprof touches; seen in
torch 2.15. Without it a loader works as ever and is not observed."""
PRIVATE_OF_LOADERS: Final = ("_iterator",)
"""And of a loader with persistent workers. Without it no one says that they had been started before."""
PRIVATE_OF_ITERATORS: Final = ("_workers",)
"""And of an iterator with workers. Without it a worker that is lost is not told of."""
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
_choosers: Final[list[Callable[[DataLoader[Any]], Observer | None]]] = []
_chosen_by: Final[WeakKeyDictionary[Any, Callable[[DataLoader[Any]], Observer | None]]] = WeakKeyDictionary()
_watched: Final[dict[type, type]] = {}
_worker_starts: Final[list[Callable[[], None]]] = []


def observe(loader: DataLoader[Any], observer: Observer) -> bool:
    """Have `observer` see each iterator of `loader`. False where this torch has no such seam."""
    loader = _iterated(loader)
    _observers[loader] = observer
    hooked = [_hook(cls) for cls in type(loader).__mro__]
    return any(hooked)


def observe_all(choose: Callable[[DataLoader[Any]], Observer | None]) -> None:
    """Have every DataLoader of this process observed, those of classes to come included.

    `choose` is asked when a loader that no one watches makes an iterator; None leaves that one alone.
    """
    if not _choosers:
        original = DataLoader.__init_subclass__

        def hook_subclass(cls: type, /, **options: Any) -> None:
            original(**options)
            _hook(cls)

        DataLoader.__init_subclass__ = classmethod(hook_subclass)  # type: ignore
    _choosers.append(choose)
    for cls in _with_subclasses(DataLoader):
        _hook(cls)


def observe_no_more(choose: Callable[[DataLoader[Any]], Observer | None]) -> None:
    """Ask `choose` no more; the loaders for which it chose are watched by no one."""
    if choose in _choosers:
        _choosers.remove(choose)
    for loader in [loader for loader, by in _chosen_by.items() if by == choose]:
        del _chosen_by[loader]
        _observers.pop(loader, None)
    if not _choosers and "__init_subclass__" in DataLoader.__dict__:
        del DataLoader.__init_subclass__


def _chosen(loader: DataLoader[Any]) -> Observer | None:
    for choose in reversed(_choosers):
        observer: Observer | None = choose(loader)
        if observer is not None:
            _observers[loader], _chosen_by[loader] = observer, choose
            return observer
    return None


def observer_of(loader: DataLoader[Any]) -> Observer | None:
    """Who watches `loader`."""
    return _observers.get(_iterated(loader))


def keeps_iterator(loader: DataLoader[Any]) -> bool:
    """Whether `loader` will iterate again with the iterator that it has, and make no other."""
    inner = _iterated(loader)
    return bool(inner.persistent_workers) and getattr(inner, "_iterator", None) is not None


def restore(loader: DataLoader[Any], observer: Observer | None) -> None:
    """Give `loader` back to whoever watched it before, or to no one."""
    if observer is None:
        _observers.pop(_iterated(loader), None)
    else:
        _observers[_iterated(loader)] = observer


def _iterated(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The loader that makes the iterators: Accelerate's `prepare` puts an adapter around it."""
    inner = getattr(loader, "base_dataloader", loader)
    return inner if isinstance(inner, DataLoader) else loader


def start_workers_with(start: Callable[[], None]) -> None:
    """Have each new worker of every loader call `start` first; it must pickle."""
    _worker_starts.append(start)
    for cls in _with_subclasses(DataLoader):
        _hook(cls)


def start_workers_without(start: Callable[[], None]) -> None:
    """Take `start` back."""
    if start in _worker_starts:
        _worker_starts.remove(start)


class _Starting:
    """A `worker_init_fn` that makes some calls before the user's own."""

    def __init__(self, starts: tuple[Callable[[], None], ...], then: Callable[[int], None] | None) -> None:
        self.starts = starts
        self.then = then

    def __call__(self, worker_id: int) -> None:
        for start in self.starts:
            start()
        if self.then is not None:
            self.then(worker_id)


def _with_subclasses(cls: type) -> Iterator[type]:
    yield cls
    below: type
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
        observer = _observers.get(self) or _chosen(self)

        def make() -> Any:
            if not _worker_starts:
                return original(self)
            init = _Starting(tuple(_worker_starts), self.worker_init_fn)
            with disguised(self, {"worker_init_fn": init}):
                return original(self)

        return make() if observer is None else observer.iterate(self, make)

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


def workers_of(iterator: Any) -> list[Any]:
    """The processes of an iterator's workers."""
    return list(getattr(iterator, "_workers", ()))


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
