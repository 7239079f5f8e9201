"""Changes that are tried on a script from outside, in its first process and in those that it starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from torch.utils.data import DataLoader

from pipeprof.environment import TRIAL
from pipeprof.errors import MeasureError
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.changes.arguments import Changes, read_changes
from pipeprof.measure.probe.changes.construct import Construction, made
from pipeprof.measure.probe.changes.fixes import Tried, read_fixes
from pipeprof.measure.probe.changes.limit import Ended, Limit
from pipeprof.measure.progress import say
from pipeprof.measure.session.job import here
from pipeprof.measure.session.processes.scaling import Makings
from pipeprof.measure.session.session import Session


@dataclass(frozen=True, slots=True)
class TriedChanges:
    """Changes that are tried on a script from outside, without an edit. None by default."""

    changes: Changes = field(default_factory=lambda: Changes({}))
    """Arguments of its loaders."""
    steps: int | None = None
    """Batches, over all loaders, after which its loops are ended."""
    seconds: float | None = None
    """Seconds from the first request for a batch until its loops are ended."""
    then_exit: bool = False
    """True if the script is ended then too."""
    quiet: bool = False
    """True if nothing is said of the end."""
    fixes: tuple[tuple[str, Tried], ...] = ()
    """Fixes that are not arguments, with their words."""
    settings: tuple[str, ...] = ()
    """The texts that `changes` were read from."""
    probes_scaling: bool = False
    """True if the parts that make batches are kept, to make some in 1, 2 and 4 processes at the end."""


def read_trial(
    settings: Sequence[str],
    steps: int | None,
    seconds: float | None,
    then_exit: bool,
    quiet: bool,
    tries: Sequence[str] = (),
) -> TriedChanges:
    """Read what `trace` is asked to try. Raises `MeasureError` for what cannot be."""
    rank = here()
    if seconds is not None and rank is not None:
        raise MeasureError(
            "--seconds would end each rank at another step, and the others would wait for it forever",
            "use --steps",
        )
    if then_exit and steps is None and seconds is None:
        raise MeasureError("--then-exit without an end of the loop", "add --steps or --seconds")
    fixes = tuple(read_fixes(tries))
    return TriedChanges(read_changes(settings), steps, seconds, then_exit, quiet, fixes, tuple(settings))


@contextmanager
def handed_on(trial: TriedChanges) -> Iterator[None]:
    """Have the processes that this one starts from now on try the same, except for `ram`, which serves
    all."""
    words = [word for word, _ in trial.fixes if "=" not in word]
    asked = {
        "settings": trial.settings,
        "steps": trial.steps,
        "seconds": trial.seconds,
        "then_exit": trial.then_exit,
        "quiet": trial.quiet,
        "tries": words,
    }
    before = os.environ.get(TRIAL)
    if trial.settings or words or trial.steps or trial.seconds:
        os.environ[TRIAL] = json.dumps(asked)
    try:
        yield
    finally:
        os.environ.pop(TRIAL, None)
        if before is not None:
            os.environ[TRIAL] = before


def trial_here() -> TriedChanges:
    """Return what this process, started by a traced one, is to try. Raises `MeasureError` as `read_trial`."""
    text = os.environ.get(TRIAL)
    return read_trial(**json.loads(text)) if text else TriedChanges()


class Trying:
    """Loaders of this process, seen from when they are made, and what is tried on them.

    `session_here` gives the run of this process, or of a child forked from it. `before_end` is called before
    the run is ended early.
    """

    def __init__(
        self,
        trial: TriedChanges,
        session_here: Callable[[], Session | None],
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._trial, self._session_here, self._before_end = trial, session_here, before_end
        self.refusal: MeasureError | None = None
        self._names: dict[str, list[Any]] = {}
        self.construction = Construction(trial.changes, self._refuse)
        self.construction.begin()
        self._choose = self._observer_of
        hook.observe_all(self._choose)
        self.makings = Makings()
        self.limit: Limit | None = None
        if trial.steps is not None or trial.seconds is not None:
            self.limit = Limit(trial.steps, trial.seconds, trial.then_exit, self._reached)
            hook.open_gate(self.limit)

    def end(self) -> None:
        """Let go of the loaders."""
        self.construction.end()
        hook.observe_no_more(self._choose)
        if self.limit is not None:
            hook.close_gate(self.limit)

    def _observer_of(self, loader: DataLoader[Any]) -> hook.Observer | None:
        session = self._session_here()
        if session is None:
            return None
        watch = session.watch_of(loader, self._name_of(loader))
        if self._trial.probes_scaling:
            self.makings.keep(watch.number, watch.name, loader)
        return watch

    def _name_of(self, loader: DataLoader[Any]) -> str:
        """Return the loader's name in the source, with a number if another loader already has it."""
        how = made(loader)
        if not how.name:
            return ""
        alike = (how.site, loader.batch_size, type(loader.dataset), _length(loader.dataset))
        known = self._names.setdefault(how.name, [])
        if alike not in known:
            known.append(alike)
        number = known.index(alike) + 1
        return how.name if number == 1 else f"{how.name}-{number}"

    def _refuse(self, error: MeasureError) -> NoReturn:
        self.refusal = error
        raise Ended(error.exit_code)

    def _reached(self, why: str) -> None:
        """End the record: what follows is not part of it."""
        self.say(f"the loop was ended {why}" + ("" if self._trial.then_exit else "; the script goes on"))
        hook.observe_no_more(self._choose)
        self._before_end()
        session = self._session_here()
        if session is not None:
            session.amend(lambda meta: replace(meta, stopped=why))
            session.close()

    def say(self, line: str) -> None:
        """Print a line of our own, unless output is off."""
        if not self._trial.quiet:
            say(f"pipeprof: {line}")


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except Exception:  # a foreign length may be refused in any way
        return None


def begin_fixes(trial: TriedChanges) -> tuple[str, ...]:
    """Carry out the fixes that are to be tried. Raises `MeasureError`, with none of them done."""
    done: list[str] = []
    try:
        for word, fix in trial.fixes:
            done.append(f"--try {word}: {fix.begin()}")
            if not trial.quiet:
                say(f"pipeprof: {done[-1]}")
    except MeasureError:
        for _, fix in trial.fixes[: len(done)]:
            fix.end()
        raise
    return tuple(done)
