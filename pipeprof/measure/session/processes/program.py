"""All processes of one traced program, as seen from the first, which has them observed and gathers their
runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from pipeprof.environment import leave_alone
from pipeprof.errors import TraceError
from pipeprof.measure.session.job import here
from pipeprof.measure.session.processes import ending
from pipeprof.measure.session.processes.chosen import chosen_here
from pipeprof.measure.session.processes.observed import ObservedProcess, close_for_exit
from pipeprof.measure.session.processes.place import observe_children, put_back
from pipeprof.measure.session.processes.started import Started
from pipeprof.measure.session.session import Session
from pipeprof.record import directories
from pipeprof.record.files import write_atomically
from pipeprof.record.reader import load
from pipeprof.record.schema import RUN_JSON, STREAM_SUFFIX

PATIENCE_S: Final = 15.0
"""Time for processes that are still closing their runs when the first has ended."""


class Gathered(NamedTuple):
    """Runs of a program's processes, when it has ended."""

    directory: Path
    """The one run, or the directory of all."""
    steps: int
    """Steps of the first process, or of the one that was observed."""
    ranks: int
    """Ranks that were observed, if the program was a job of several; else 0."""
    processes: int
    """Further processes that were observed besides the first, if there are several runs."""
    unobserved: list[str]
    elsewhere: bool = False
    """True if processes other than the first were observed."""


class Program:
    """Has the processes of a program observed while its block lasts; `session` is the run of this one."""

    def __init__(self, session: Session, lines: bool) -> None:
        self.session, self._lines = session, lines
        self._root = session.directory
        self._was_rank = here() is not None
        self._observed = ObservedProcess(self._root, lines, session)
        self._started = Started()
        self._pid = os.getpid()
        self._unobserved: list[str] = []
        self._gone = False

    def __enter__(self) -> Program:
        leave_alone()
        self._environment = observe_children(
            self._root, self._lines, self._started.file, self.session.every_batch
        )
        self._started.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Observe no process that is started from now on. Later calls do nothing, nor do children's."""
        if os.getpid() != self._pid or self._gone:
            return
        self._gone = True
        ending.forget()
        put_back(self._environment)
        self._unobserved = self._started.end()
        self.session.take_place()
        for what in (*self._unobserved, *self._missing_ranks()):
            self.session.add_unseen(what)

    def at_os_exit(self, tell: Callable[[int], None]) -> None:
        """Close the run, and call `tell` with the exit code, if the program ends by `os._exit`."""

        def close(status: int) -> None:
            self.let_go()
            close_for_exit(self.session, status)
            tell(status)

        ending.before_exit(close)

    def _missing_ranks(self) -> list[str]:
        rank = here()
        if rank is None or self._was_rank or rank.world_size is None:
            return []
        there, chosen = directories.parts(self._root), chosen_here()
        missing = [str(n) for n in range(rank.world_size) if n not in there and chosen.holds(n)]
        which = "rank" if len(missing) == 1 else "ranks"
        return [f"{which} {', '.join(missing[:8])} of {rank.world_size}"] if missing else []

    def session_here(self) -> Session | None:
        """Return the session of this process, which may be a child that was forked; None in a worker."""
        return self._observed.session_here()

    def own_run(self) -> Gathered:
        """Return the run of the first process alone."""
        return Gathered(self.session.directory, self.session.steps.taken, 0, 0, self._unobserved)

    def gathered(self, patience_s: float = PATIENCE_S) -> Gathered:
        """Return the runs, when this process's own is closed.

        If there are others, the empty run of a mere launcher is removed, and their own runs lie next to it; a
        single run lies where it was asked for.
        """
        session, root, own = self.session, self._root, self.own_run()
        if self._was_rank:
            return own
        self._wait(patience_s)
        ranks = list(directories.parts(root).values())
        others = directories.processes(root)
        if ranks == [session.directory] and not others:
            return own
        if session.directory == root and (ranks or others):
            self._make_room()
            others = directories.processes(root)
        if len(others) == 1 and not ranks:
            _move_up(others[0], root)
            _add_unseen(root, self._unobserved)
            return Gathered(root, _steps(root), 0, 0, self._unobserved, elsewhere=True)
        for run in [*ranks, *others][:1]:
            _add_unseen(run, self._unobserved)
        steps = session.steps.taken
        elsewhere = bool(ranks or others)
        return Gathered(root, steps, len(ranks), len(others), self._unobserved, elsewhere)

    def _make_room(self) -> None:
        if self.session.steps.taken == 0:
            _remove_run(self._root)
            return
        own = self._root / "process-0"
        own.mkdir(exist_ok=True)
        for path in _files_of_run(self._root):
            path.rename(own / path.name)

    def _wait(self, patience_s: float) -> None:
        """Wait until the other processes have closed their runs, for as long as that is likely."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(map(_is_running, _runs_below(self._root))):
            time.sleep(0.05)


def _runs_below(root: Path) -> list[Path]:
    return [*directories.parts(root).values(), *directories.processes(root)]


def _is_running(directory: Path) -> bool:
    with suppress(TraceError):
        return load(directory).status == "running"
    return False


def _steps(directory: Path) -> int:
    with suppress(TraceError):
        return int(load(directory).table("steps").num_rows)
    return 0


def _files_of_run(directory: Path) -> list[Path]:
    kinds = ("*.parquet", f"*{STREAM_SUFFIX}")
    return [*(path for kind in kinds for path in directory.glob(kind)), directory / RUN_JSON]


def _remove_run(directory: Path) -> None:
    """Remove the files of a run; anything else in its directory stays."""
    for path in _files_of_run(directory):
        path.unlink(missing_ok=True)


def _move_up(run: Path, root: Path) -> None:
    """Put the only run where it was asked for."""
    with suppress(OSError):
        for path in run.iterdir():
            path.rename(root / path.name)
        run.rmdir()


def _add_unseen(directory: Path, unseen: list[str]) -> None:
    """Enter into a closed run what else was not observed."""
    if unseen:
        with suppress(TraceError, OSError):
            meta = load(directory).meta
            known = dict.fromkeys([*meta.not_observed, *unseen])
            write_atomically(directory / RUN_JSON, replace(meta, not_observed=tuple(known)).as_text())
