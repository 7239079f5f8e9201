"""The seam at which a script's loaders are made: DataLoader's constructor, and torchdata's.

Under it each loader gets the arguments that are set from outside, and is remembered with the place of the
call. A loader that a library rebuilds from another one, as Accelerate and Lightning do, passes through it
again: the same arguments are set again, and it keeps the place and the name of the loader that it was made
from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.changes.arguments import THREADS, Changes, resolve
from pipeprof.measure.probe.changes.sites import Site, site_of
from pipeprof.measure.probe.patches import patch, release

_HOLDER: Final = "construct"


@dataclass(frozen=True, slots=True)
class Made:
    """Origin of a loader: place, name, and what was changed."""

    site: Site | None = None
    name: str = ""
    """Name in the source; empty if it has none."""
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Arguments that were set from outside: the script's value and the new one."""


_made: Final[WeakKeyDictionary[Any, Made]] = WeakKeyDictionary()


_data_wrappers: Final[list[Callable[[Any], Any]]] = []
"""What the data set of each loader is wrapped in, while a `Construction` is active."""


def wrap_data_sets(wrap: Callable[[Any], Any]) -> None:
    """Give each loader that is made from now on `wrap` of its data set."""
    _data_wrappers.append(wrap)


def wrap_data_sets_no_more(wrap: Callable[[Any], Any]) -> None:
    """Take back `wrap_data_sets`; loaders that were made keep theirs."""
    _data_wrappers.remove(wrap)


def made(loader: DataLoader[Any]) -> Made:
    """Return how `loader` was made; nothing is known of one that was made before, or is not torch's."""
    return _made.get(loader, Made()) if isinstance(loader, DataLoader) else Made()


def remember(loader: DataLoader[Any]) -> None:
    """Keep the place at which `loader`, whose constructor is running, is made, unless it is known already."""
    if loader not in _made:
        site = site_of(loader)
        origin = _rebuilt_from(vars(loader)) if site is None or site.in_library else None
        _made[loader] = origin or Made(site, "" if site is None else site.name)


class Construction:
    """Sees each loader that is made between `begin` and `end`, and sets `changes`.

    `refuse` is called, and must raise, if a change is incompatible with the script's own arguments.
    """

    def __init__(self, changes: Changes, refuse: Callable[[MeasureError], NoReturn]) -> None:
        self._changes, self._refuse = changes, refuse
        self.names: set[str] = set()
        """Names of the loaders that were made."""

    def begin(self) -> None:
        """Patch the constructors, including those of torchdata's classes, whether imported or not yet."""
        hook.each_class(self._patch)

    def end(self) -> None:
        """Put the constructors back."""
        hook.each_class_no_more(self._patch)
        release(_HOLDER)

    def _patch(self, cls: type) -> None:
        if "__init__" in cls.__dict__ and hook.is_of_torch(cls):
            patch(_HOLDER, cls, "__init__", self._constructing)

    def _constructing(self, original: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(original)

        def construct(self_: Any, *args: Any, **kwargs: Any) -> None:
            try:
                bound = signature.bind(self_, *args, **kwargs)
            except TypeError:
                original(self_, *args, **kwargs)  # raises the same, from torch
                return
            bound.apply_defaults()
            arguments: dict[str, Any] = dict(bound.arguments)
            for wrap in _data_wrappers:
                arguments["dataset"] = bound.arguments["dataset"] = wrap(arguments["dataset"])
            facts, wanted = self._prepare(self_, arguments)
            if wanted:
                bound.arguments.update({**arguments, **wanted[0]})
            original(*bound.args, **bound.kwargs)
            _made[self_] = facts
            if wanted and THREADS in wanted[1]:
                hook.start_workers_of(self_, SetThreads(wanted[1][THREADS]))

        return construct

    def _prepare(
        self, loader: Any, given: Mapping[str, Any]
    ) -> tuple[Made, tuple[dict[str, Any], dict[str, Any]] | None]:
        """Return how a loader is being made, and its arguments if some of them are changed."""
        site = site_of(loader)
        origin = _rebuilt_from(given) if site is None or site.in_library else None
        name = origin.name if origin is not None else site.name if site is not None else ""
        self.names.add(name)
        site = origin.site if origin is not None else site
        wanted = self._changes.of(name)
        if not wanted:
            return Made(site, name), None
        try:
            resolved = resolve(given, wanted, _where(site, name))
        except MeasureError as error:
            self._refuse(error)
        before = {} if origin is None else {key: was for key, (was, _) in origin.changed.items()}
        changed = {key: (before.get(key, given.get(key)), value) for key, value in wanted.items()}
        dropped = {
            key: (given[key], value)
            for key, value in resolved.items()
            if key in given and key not in wanted and value is not given[key]
        }
        return Made(site, name, {**changed, **dropped}), (resolved, wanted)


def _rebuilt_from(given: Mapping[str, Any]) -> Made | None:
    """Return the loader from whose parts a library makes another one: the user's, or the first."""
    alike = [
        ((not made.site.in_library, loader.collate_fn is given.get("collate_fn")), made)
        for loader, made in list(_made.items())
        if made.site is not None and getattr(loader, "dataset", None) is given.get("dataset")
    ]
    return max(alike, key=lambda each: each[0])[1] if alike else None


def _where(site: Site | None, name: str) -> str:
    place = "" if site is None else f" at {site.file}:{site.line}"
    return f"the loader {name}{place}".replace("loader  at", "loader at").rstrip()


@dataclass(frozen=True, slots=True)
class SetThreads:
    """Call that gives a worker's torch that many threads."""

    threads: int

    def __call__(self) -> None:
        """Set them in this process."""
        import torch

        torch.set_num_threads(self.threads)
