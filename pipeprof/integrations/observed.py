"""A run observed on behalf of a trainer: what the callbacks of all trainers share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeprof.errors import MeasureError
from pipeprof.measure import hook
from pipeprof.measure.loader import verdict_of
from pipeprof.measure.session import Session
from pipeprof.measure.session_facts import status_of

PREFIX = "pipeprof/"


def missing(library: str, extra: str) -> MeasureError:
    """The error for a callback whose library is not there."""
    return MeasureError(f"{library} is not installed", f'pip install "pipeprof[{extra}]"')


class ObservedTraining:
    """From the start of a training to its end. The trainer's loaders are plain again after it."""

    def __init__(self, out: Path | str | None, name: str) -> None:
        self.session = Session(out, name=name)
        self._loaders: list[tuple[Any, hook.Observer | None]] = []

    def observe(self, loader: Any) -> None:
        """Observe a DataLoader from its next iterator on."""
        self._loaders.append((loader, hook.observer_of(loader)))
        self.session.observe(loader)

    def watch_of(self, loader: Any) -> hook.Observer:
        """Who is to watch a DataLoader that no one watches, and that makes an iterator now."""
        self._loaders.append((loader, None))
        return self.session.watch_of(loader)

    def scalars(self) -> dict[str, float]:
        """`loader.summary()` of all loaders together, its names behind `PREFIX`."""
        return {PREFIX + name: value for name, value in self.session.summary().items()}

    def end(self, error: BaseException | None = None) -> Mapping[str, Any]:
        """End the run; returns what it says: the dictionary of `pipeprof report --json`."""
        for loader, observer in self._loaders:
            hook.restore(loader, observer)
        self.session.close(status_of(error), error=error)
        try:
            return verdict_of(self.session)
        finally:
            self.session.discard()
