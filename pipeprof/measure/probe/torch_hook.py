"""The one place where pipeprof reaches into torch's private parts, each named in a list here.

While the original runs, the loader's public parts are our proxies, put into its `__dict__` and taken out
again; the iterator that comes back gets a subclass of its own class that overrides only `__next__`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader, dataloader

from pipeprof.measure.probe.patches import patch, release

PRIVATE: Final = ("_get_iterator",)
"""Every private name of torch's loader, and of torchdata's subclass of it, that pipeprof touches; seen in
torch 2.15. Without it a loader works as ever and is not observed."""
PRIVATE_OF_LOADERS: Final = ("_iterator",)
"""Private names of a loader with persistent workers. Without them there is no warning of an earlier start."""
PRIVATE_OF_ITERATORS: Final = ("_workers",)
"""Private names of an iterator with workers. Without them a lost worker is not recorded."""
PRIVATE_CLASSES: Final = ("_SingleProcessDataLoaderIter", "_MultiProcessingDataLoaderIter")
"""torch's iterators, which some loaders make themselves. Without them such a loader is not observed."""
_HOLDER: Final = "loaders"
_GATE_HOLDER: Final = "gate"
_OURS: Final = ("torch.", "torchdata.")
"""Packages with a known `_get_iterator`; a user's override calls theirs, or makes an iterator of torch's."""


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

    def dropped(self) -> None:
        """Note that the iterator is no longer held. Called in a finalizer, before torch's own."""
        ...


class NextGate(Protocol):
    """Stands before each `next(iterator)` of every loader, watched or not."""

    def begin_pass(self, iterator: Any) -> None:
        """Note that a pass over a loader begins with `iterator`."""
        ...

    def next(self, take: Callable[[], Any], iterator: Any) -> Any:
        """Call `take`, or raise StopIteration in its place."""
        ...


_observers: Final[WeakKeyDictionary[Any, Observer]] = WeakKeyDictionary()
_choosers: Final[list[Callable[[DataLoader[Any]], Observer | None]]] = []
_chosen_by: Final[WeakKeyDictionary[Any, Callable[[DataLoader[Any]], Observer | None]]] = WeakKeyDictionary()
_watched: Final[dict[type, type]] = {}
_worker_starts: Final[list[Callable[[], None]]] = []
_making: Final[set[int]] = set()
"""Identities of the loaders whose iterator is being made, and observed."""
_starts_of: Final[WeakKeyDictionary[Any, tuple[Callable[[], None], ...]]] = WeakKeyDictionary()
_before_iterators: Final[list[Callable[[], None]]] = []
_class_visits: Final[list[Callable[[type], None]]] = []
_gates: Final[list[NextGate]] = []


def observe(loader: DataLoader[Any], observer: Observer) -> bool:
    """Have `observer` see each iterator of `loader`. False if this torch has no such seam."""
    loader = _iterated(loader)
    _observers[loader] = observer
    hooked = [_hook(cls) for cls in type(loader).__mro__]
    return _hook_classes() or any(hooked)


def forget(observer: Observer) -> None:
    """Stop showing loaders to `observer`."""
    for loader in [loader for loader, each in _observers.items() if each is observer]:
        del _observers[loader]
    _unhook_unused()


def observe_all(choose: Callable[[DataLoader[Any]], Observer | None]) -> None:
    """Have every DataLoader of this process observed, those of classes to come included.

    `choose` is asked when a loader that no one watches makes an iterator; None leaves that one alone.
    """
    _choosers.append(choose)
    _hook_all()


def _hook_all() -> None:
    patch(_HOLDER, DataLoader, "__init_subclass__", _hooking_subclasses)
    _hook_classes()
    for cls in _with_subclasses(DataLoader):
        _hook(cls)


def _hooking_subclasses(original: Callable[..., None]) -> Any:
    def hook_subclass(cls: type, /, **options: Any) -> None:
        original(**options)
        _hook(cls)
        for visit in _class_visits:
            visit(cls)

    return classmethod(hook_subclass)


def each_class(visit: Callable[[type], None]) -> None:
    """Call `visit` with DataLoader and each class derived from it, those to come included."""
    _class_visits.append(visit)
    _hook_all()
    for cls in _with_subclasses(DataLoader):
        visit(cls)


def each_class_no_more(visit: Callable[[type], None]) -> None:
    """Take `visit` back."""
    if visit in _class_visits:
        _class_visits.remove(visit)
    _unhook_unused()


def is_of_torch(cls: type) -> bool:
    """Return True for torch's own loader, and torchdata's."""
    return f"{cls.__module__}.".startswith(_OURS)


def open_gate(gate: NextGate) -> None:
    """Have each pass over every loader of this process, and each batch, go through `gate`."""
    _gates.append(gate)
    _hook_all()
    each_class(_gate_passes)


def close_gate(gate: NextGate) -> None:
    """Take `gate` away."""
    if gate in _gates:
        _gates.remove(gate)
    each_class_no_more(_gate_passes)
    release(_GATE_HOLDER)


def _gate_passes(cls: type) -> None:
    if "__iter__" in cls.__dict__ and is_of_torch(cls):
        patch(_GATE_HOLDER, cls, "__iter__", _beginning_pass)


def _beginning_pass(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def begin_pass(self: DataLoader[Any]) -> Any:
        iterator = original(self)
        for gate in _gates:
            gate.begin_pass(iterator)
        return iterator

    return begin_pass


class _Bystander:
    """Watcher of an iterator that no one observes, and that a gate stands before."""

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        return original(iterator)

    def dropped(self) -> None:
        pass


def observe_no_more(choose: Callable[[DataLoader[Any]], Observer | None]) -> None:
    """Stop asking `choose`; the loaders for which it chose are watched by no one."""
    if choose in _choosers:
        _choosers.remove(choose)
    for loader in [loader for loader, by in _chosen_by.items() if by == choose]:
        del _chosen_by[loader]
        _observers.pop(loader, None)
    _unhook_unused()


def _chosen(loader: DataLoader[Any]) -> Observer | None:
    for choose in reversed(_choosers):
        observer: Observer | None = choose(loader)
        if observer is not None:
            _observers[loader], _chosen_by[loader] = observer, choose
            return observer
    return None


def _choose_anew() -> None:
    """Let the choosers choose in a forked child: an observer of a loader in the parent does not watch it
    there."""
    for loader in list(_chosen_by):
        _observers.pop(loader, None)
    _chosen_by.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_choose_anew)


def observer_of(loader: DataLoader[Any]) -> Observer | None:
    """Return who watches `loader`."""
    return _observers.get(_iterated(loader))


def kept_iterators(loader: DataLoader[Any]) -> list[Any]:
    """Return the iterators that `loader` has made and keeps to iterate with again, that no one watches."""
    inner, torchs = _iterated(loader), getattr(dataloader, "_BaseDataLoaderIter", None)
    kept = dict(vars(inner))
    if not inner.persistent_workers:
        kept.pop(PRIVATE_OF_LOADERS[0], None)  # it makes another, all the same
    if torchs is None:
        return []
    return [
        each for each in kept.values() if isinstance(each, torchs) and "_pipeprof_watch" not in each.__dict__
    ]


def keeps_iterator(loader: DataLoader[Any]) -> bool:
    """Return whether `loader` will iterate again with the iterator that it has, and make no other."""
    inner = _iterated(loader)
    return bool(inner.persistent_workers) and getattr(inner, "_iterator", None) is not None


def restore(loader: DataLoader[Any], observer: Observer | None) -> None:
    """Give `loader` back to whoever watched it before, or to no one."""
    if observer is None:
        _observers.pop(_iterated(loader), None)
    else:
        _observers[_iterated(loader)] = observer
    _unhook_unused()


def _iterated(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return the loader that makes the iterators: Accelerate's `prepare` puts an adapter around it."""
    inner = getattr(loader, "base_dataloader", loader)
    return inner if isinstance(inner, DataLoader) else loader


def start_workers_with(start: Callable[[], None]) -> None:
    """Have each new worker of every loader call `start` first; it must pickle."""
    _worker_starts.append(start)
    for cls in _with_subclasses(DataLoader):
        _hook(cls)


def before_iterators(call: Callable[[], None]) -> None:
    """Have `call` called in this process before any loader makes an iterator, and so starts its workers."""
    _before_iterators.append(call)
    _hook_all()


def before_iterators_no_more(call: Callable[[], None]) -> None:
    """Take `call` back."""
    if call in _before_iterators:
        _before_iterators.remove(call)
    _unhook_unused()


def start_workers_of(loader: DataLoader[Any], start: Callable[[], None]) -> None:
    """Have each new worker of `loader` call `start` first; it must pickle."""
    _starts_of[loader] = (*_starts_of.get(loader, ()), start)


def start_workers_without(start: Callable[[], None]) -> None:
    """Take `start` back."""
    if start in _worker_starts:
        _worker_starts.remove(start)
    _unhook_unused()


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
    """Replace torch's own `_get_iterator` in `cls`. False if `cls` has none of torch's."""
    if PRIVATE[0] not in cls.__dict__ or not is_of_torch(cls):
        return False
    patch(_HOLDER, cls, PRIVATE[0], _observing)
    return True


def _unhook_unused() -> None:
    """Put torch's methods back if no one wants to observe a loader or to start its workers."""
    wanted = (_observers, _choosers, _worker_starts, _before_iterators, _class_visits, _gates)
    if not any(wanted):
        release(_HOLDER)


def _hook_classes() -> bool:
    """Replace the constructors of torch's iterators. False if this torch has none of them."""
    classes = [getattr(dataloader, name, None) for name in PRIVATE_CLASSES]
    for cls in filter(None, classes):
        patch(_HOLDER, cls, "__init__", _constructing)
    return any(classes)


def _observing(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def _get_iterator(self: DataLoader[Any]) -> Any:
        return _made_observed(self, lambda: original(self))

    return _get_iterator


def _constructing(original: Callable[..., None]) -> Callable[..., None]:
    """Observe what no `_get_iterator` of torch's makes: a loader's own, or another library's."""

    def construct(self: Any, loader: Any, *arguments: Any, **keywords: Any) -> None:
        def make() -> Any:
            original(self, loader, *arguments, **keywords)
            return self

        if id(loader) in _making:
            make()
        else:
            _made_observed(loader, make)

    return construct


def _made_observed(loader: Any, build: Callable[[], Any]) -> Any:
    for call in _before_iterators:
        call()
    observer = _observers.get(loader) or _chosen(loader)

    def make() -> Any:
        starts = (*_worker_starts, *_starts_of.get(loader, ()))
        if not starts:
            return build()
        with disguised(loader, {"worker_init_fn": _Starting(starts, loader.worker_init_fn)}):
            return build()

    _making.add(id(loader))
    try:
        iterator = make() if observer is None else observer.iterate(loader, make)
    finally:
        _making.discard(id(loader))
    if _gates and "_pipeprof_watch" not in iterator.__dict__:
        watch(iterator, _Bystander())
    return iterator


@contextmanager
def disguised(loader: DataLoader[Any], parts: Mapping[str, Any]) -> Iterator[None]:
    """Put `parts` in place of the loader's own attributes, for as long as an iterator is being made."""
    before = {name: loader.__dict__[name] for name in parts if name in loader.__dict__}
    loader.__dict__.update(parts)  # past __setattr__, which forbids what is taken back at once
    try:
        yield
    finally:
        for name in parts:
            if name not in before:
                loader.__dict__.pop(name, None)
        loader.__dict__.update(
            before
        )  # each in its place: a pickle of the loader has its attributes in order


def workers_of(iterator: Any) -> list[Any]:
    """Return the processes of an iterator's workers."""
    return list(getattr(iterator, "_workers", ()))


def watch(iterator: Any, watcher: Watcher) -> bool:
    """Put `watcher` around each `next(iterator)`. False if the iterator's class cannot be changed."""
    try:
        iterator.__class__ = _watched_class(type(iterator))
        iterator.__dict__[_WATCH] = watcher
    except (AttributeError, TypeError):
        return False
    return True


def is_watched(iterator: Any) -> bool:
    """Return whether an iterator is watched."""
    return _WATCH in iterator.__dict__


def unwatch(iterator: Any) -> None:
    """Take the watcher of an iterator away, in the middle of anything its thread may do."""
    cls = type(iterator)
    if cls in _watched.values():
        iterator.__class__ = cls.__mro__[1]
    iterator.__dict__.pop(_WATCH, None)


_WATCH: Final = "_pipeprof_watch"
"""Attribute of an iterator that is watched."""


class _Finalizer(partial[None]):
    """A finalizer and its object, which Python names as it names the finalizer alone."""

    def __repr__(self) -> str:
        return repr(self.func)


class _LastCall:
    """An object that nothing holds: its end calls another's finalizer, with no frame of ours below it.

    Python reports an error in a finalizer with the finalizer and the frames from it on, as it does in a
    forked child that drops an iterator: torch finds there that the workers are not its own.
    """

    # As the interpreter ends, an iterator may outlive the names of this module.
    _finalizer: Final = _Finalizer

    def __init__(self, finalize: Callable[[Any], None], of: Any) -> None:
        self._call = self._finalizer(finalize, of)

    @property
    def __del__(self) -> Callable[[], None]:
        return self._call


def _watched_class(cls: type) -> type:
    if cls not in _watched:
        original = cls.__next__  # type: ignore[attr-defined]
        finalize = getattr(cls, "__del__", None)
        last_call: Final = _LastCall  # it may be gone as a module's name, as the interpreter ends

        def next_watched(self: Any) -> Any:
            watch = self.__dict__.get(_WATCH)
            if watch is None:  # it was taken away just now
                return original(self)
            if _gates:
                return _gates[-1].next(lambda: watch.next(original, self), self)
            return watch.next(original, self)

        def drop_watched(self: Any) -> None:
            try:
                if (watch := self.__dict__.get(_WATCH)) is not None:
                    watch.dropped()
            finally:
                if finalize is not None:
                    last_call(finalize, self)  # it shuts the workers down, which takes its time

        names = {
            "__next__": next_watched,
            "__del__": drop_watched,
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
        }
        _watched[cls] = type(cls.__name__, (cls,), names)
    return _watched[cls]
