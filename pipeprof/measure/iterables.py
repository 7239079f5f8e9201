"""Watches what is iterated in place of a DataLoader: each wait of the loop, and no more than that.

What happens inside such an iterable, in its threads or its processes, is its own business. Where it has a
DataLoader of torch in it, as WebDataset's `WebLoader` has, that one is observed, workers and all, and what
the iterable does beside it is a stage of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic_ns
from typing import Any, Final

from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError
from pipeprof.measure.recorder import activate, stage
from pipeprof.measure.session import Session

KIND: Final = "iterable"
"""The `kind` in run.json of what is no DataLoader."""


def loaders_in(iterable: Any) -> list[DataLoader[Any]]:
    """The DataLoaders that are attributes of `iterable`, or stand in its lists."""
    found: list[DataLoader[Any]] = []
    for value in vars(iterable).values() if hasattr(iterable, "__dict__") else ():
        values = value if isinstance(value, (list, tuple)) else (value,)
        found += [each for each in values if isinstance(each, DataLoader)]
    return found


def inside_unseen(iterable: Any) -> str:
    """What is not observed of an iterable, for run.json."""
    return f"the inside of {type(iterable).__name__}"


class ObservedIterable:
    """Stands in for an iterable: the same items, the same attributes, its waits recorded in `session`.

    Raises `MeasureError` for what cannot be iterated.
    """

    def __init__(self, iterable: Any, session: Session, loaders_inside: bool) -> None:
        kind = type(iterable)
        if not any(hasattr(kind, name) for name in ("__iter__", "__next__", "__getitem__")):
            raise MeasureError(f"a {kind.__name__} cannot be iterated", "give profile() a loader")
        self._iterable, self._session = iterable, session
        self._own: Iterator[Any] | None = None
        self._watch = None if loaders_inside else IterableWatch(session, iterable)

    def __iter__(self) -> Iterator[Any]:
        iterable = self._iterable
        # what has no __iter__ of its own is iterated as DALI's older pipelines are: by next() alone
        by_next = hasattr(type(iterable), "__next__") and not hasattr(type(iterable), "__iter__")
        made = iterable if by_next else iter(iterable)
        if self._watch is None:
            return _Staged(made, type(iterable).__name__)
        return _Waits(made, self._watch)

    def __next__(self) -> Any:
        if not hasattr(type(self._iterable), "__next__"):
            raise TypeError(f"{type(self._iterable).__name__!r} object is not an iterator")
        if self._own is None:
            self._own = iter(self)
        try:
            return next(self._own)
        except StopIteration:
            self._own = None
            raise

    def __len__(self) -> int:
        return len(self._iterable)

    def __bool__(self) -> bool:
        return bool(self._iterable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_iterable"], name)


class IterableWatch:
    """What a session is told of one iterable."""

    finished: Final[Mapping[int, Any]] = {}
    """No worker of ours reports a batch, and none is made between request and take that we could see."""

    def __init__(self, session: Session, iterable: Any) -> None:
        self.session = session
        self.epoch = -1
        name = type(iterable).__name__
        self.loader_number = session.enter(
            {
                "kind": KIND,
                "name": name,
                "batch_size": None,
                "workers": None,
                "prefetch": None,
                "dataset": name,
                "iterable": True,
                "samples": None,
            }
        )


class _Pass:
    """An iterator in another's place."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def __iter__(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_iterator"], name)


class _Waits(_Pass):
    """One pass over an iterable."""

    def __init__(self, iterator: Any, watch: IterableWatch) -> None:
        super().__init__(iterator)
        self._watch, self._session = watch, watch.session
        self._took: Callable[..., None] = watch.session.took
        watch.epoch += 1
        self._epoch, self._taken = watch.epoch, 0
        self._session.event("epoch_start", loader=watch.loader_number, epoch=self._epoch)

    def __next__(self) -> Any:
        session = self._session
        if not session.active:
            return next(self._iterator)
        request_ns = monotonic_ns()
        session.requested(request_ns)
        loop = activate(None)  # what the iterable itself marks is no part of the loop's body
        try:
            item = next(self._iterator)
        except StopIteration:
            session.event("epoch_end", loader=self._watch.loader_number, epoch=self._epoch)
            raise
        finally:
            activate(loop)
        key = (self._epoch, self._taken)
        self._took(self._watch, self._taken, key, request_ns, monotonic_ns(), None)
        self._taken += 1
        return item


class _Staged(_Pass):
    """One pass over an iterable around a DataLoader: what it does beside the waiting is a stage."""

    def __init__(self, iterator: Any, name: str) -> None:
        super().__init__(iterator)
        self._name = name

    def __next__(self) -> Any:
        with stage(self._name):
            return next(self._iterator)
