"""Watches an iterable used in place of a DataLoader: only the loop's waits are observed.

What happens inside such an iterable, in its threads or its processes, is not observed. If it contains a
DataLoader of torch, as WebDataset's `WebLoader` does, that one is observed, workers and all, and what the
iterable does besides is a stage of the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic_ns
from typing import Any, Final

from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError
from pipeprof.measure.probe.handover import UNSEEN_WAY, Way
from pipeprof.measure.probe.spans import activate, reactivate, stage
from pipeprof.measure.session.passes import Pass
from pipeprof.measure.session.session import Session
from pipeprof.measure.session.sources import ray_data
from pipeprof.measure.session.sources.ray_data import added, statistics_of
from pipeprof.record.meta import LoaderMeta, OperatorMeta

KIND: Final = "iterable"
"""The `kind` in run.json of anything that is not a DataLoader."""


def loaders_in(iterable: Any) -> list[DataLoader[Any]]:
    """Return the DataLoaders among the attributes of `iterable` and in its lists."""
    loaders: list[DataLoader[Any]] = []
    for value in vars(iterable).values() if hasattr(iterable, "__dict__") else ():
        values = value if isinstance(value, (list, tuple)) else (value,)
        loaders += [each for each in values if isinstance(each, DataLoader)]
    return loaders


def inside_unseen(iterable: Any) -> str:
    """Return what is not observed of an iterable, for run.json."""
    return f"the inside of {_name_of(iterable)}"


def _name_of(iterable: Any) -> str:
    return type(iterable).__name__ if statistics_of(iterable) is None else ray_data.NAME


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
        if self._watch is not None:
            self._watch.end_pass()
        asked_ns = monotonic_ns()
        made = iterable if by_next else iter(iterable)
        if self._watch is None:
            return _Staged(made, type(iterable).__name__)
        return _Waits(made, self._watch, asked_ns)

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
    """Observes one iterable for a session."""

    finished: Final[Mapping[int, Any]] = {}
    """None of our workers reports a batch, and we cannot see one being made between request and take."""

    def __init__(self, session: Session, iterable: Any) -> None:
        self.session = session
        self.epoch = -1
        self._statistics, self._unread = statistics_of(iterable), False
        self._operators: tuple[OperatorMeta, ...] = ()
        if self._statistics is not None:
            session.before_end.append(self.end_pass)
        name = _name_of(iterable)
        self.loader_number = session.enter(
            LoaderMeta(id=0, kind=KIND, name=name, dataset=name, iterable=True)
        )

    def begin_pass(self) -> int:
        """Begin a pass; return its number."""
        self.end_pass()
        self.epoch, self._unread = self.epoch + 1, True
        return self.epoch

    def end_pass(self) -> None:
        """Add the source's own statistics of the finished pass, once."""
        if self._statistics is None or not self._unread:
            return
        self._unread = False
        if (operators := self._statistics()) is not None:
            self._operators = added(self._operators, operators)
            self.session.add_operators(self.loader_number, self._operators)

    def way_of(self, epoch: int, seq: int) -> Way:
        """Return that a batch's way was not observed."""
        return UNSEEN_WAY


class _Pass:
    """An iterator in another's place."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def __iter__(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_iterator"], name)


class _Waits(_Pass):
    """Pass over an iterable."""

    def __init__(self, iterator: Any, watch: IterableWatch, asked_ns: int) -> None:
        super().__init__(iterator)
        self._watch, self._session = watch, watch.session
        self._epoch, self._taken = watch.begin_pass(), 0
        self._pass = Pass(self._session.event, watch.loader_number, self._epoch, asked_ns)

    def __next__(self) -> Any:
        session = self._session
        if not session.active:
            return next(self._iterator)
        request_ns = monotonic_ns()
        session.steps.requested(request_ns)
        loop = activate(None)  # what the iterable itself marks is not part of the loop's body
        try:
            item = next(self._iterator)
        except StopIteration:
            self._pass.exhaust(request_ns)
            self._watch.end_pass()
            raise
        finally:
            reactivate(loop)
        key = (self._epoch, self._taken)
        session.steps.took(self._watch, self._taken, key, request_ns, monotonic_ns(), None)
        self._taken += 1
        return item

    def __del__(self) -> None:
        self._pass.drop()


class _Staged(_Pass):
    """Pass over an iterable that wraps a DataLoader: its own work besides waiting is a stage."""

    def __init__(self, iterator: Any, name: str) -> None:
        super().__init__(iterator)
        self._name = name

    def __next__(self) -> Any:
        with stage(self._name):
            return next(self._iterator)
