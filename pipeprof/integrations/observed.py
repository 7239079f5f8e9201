"""Observation of a run on behalf of a trainer: what the callbacks of all trainers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeprof.analyse.verdict import Verdict
from pipeprof.errors import MeasureError
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.session.run_meta import status_of
from pipeprof.measure.session.session import Session
from pipeprof.wrapper import verdict_of

PREFIX = "pipeprof/"


def missing(library: str, extra: str) -> MeasureError:
    """Return the error for a callback whose library is not there."""
    return MeasureError(f"{library} is not installed", f'pip install "pipeprof[{extra}]"')


def numbered(out: Path | str | None, number: int) -> Path | None:
    """Return the directory of a callback's run of that number, from 1: `out`, `out-2`, …"""
    if out is None:
        return None
    return Path(out) if number == 1 else Path(f"{out}-{number}")


class ObservedTraining:
    """Observation of a training from its start to its end. The trainer's loaders are plain again after it."""

    def __init__(self, out: Path | str | None, name: str) -> None:
        self.session = Session(out, name=name)
        self._loaders: list[tuple[Any, hook.Observer | None]] = []

    def observe(self, loader: Any, name: str = "") -> None:
        """Observe a DataLoader from its next iterator on."""
        self._loaders.append((loader, hook.observer_of(loader)))
        self.session.observe(loader, name)

    def watch_of(self, loader: Any, name: str = "") -> hook.Observer:
        """Return the observer of a DataLoader that no one watches, and that makes an iterator now."""
        self._loaders.append((loader, None))
        return self.session.watch_of(loader, name)

    def scalars(self) -> dict[str, float]:
        """Return `loader.summary()` of all loaders together, its names behind `PREFIX`."""
        return {PREFIX + name: value for name, value in self.session.summary().items()}

    def end(self, error: BaseException | None = None) -> Verdict:
        """End the run and analyse it."""
        for loader, observer in self._loaders:
            hook.restore(loader, observer)
        self.session.close(status_of(error), error=error)
        try:
            return verdict_of(self.session)
        finally:
            self.session.discard()
