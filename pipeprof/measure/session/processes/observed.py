"""Observes one process of a traced program, from the first DataLoader that it iterates on.

A process that iterates none, such as a launcher, writes nothing, and neither does a worker of a loader.
"""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import replace
from pathlib import Path

from torch.utils.data import get_worker_info

from pipeprof.environment import LINES, STARTED, TRACE, enter
from pipeprof.errors import PipeprofError
from pipeprof.measure.progress import say
from pipeprof.measure.session.interrupts.signals import Stops
from pipeprof.measure.session.job import here, local_out
from pipeprof.measure.session.processes import ending
from pipeprof.measure.session.processes.chosen import chosen_here
from pipeprof.measure.session.processes.place import place_of
from pipeprof.measure.session.processes.trial import Trying, begin_fixes, trial_here
from pipeprof.measure.session.run_meta import status_of
from pipeprof.measure.session.session import Session
from pipeprof.record.remote.outgoing import address


class ObservedProcess:
    """Run of this process, or of a child forked from it, each with one of its own.

    `session` is the run that this process has already, if it has.
    """

    def __init__(self, out: Path, lines: bool, session: Session | None = None) -> None:
        self._out, self._lines = out.absolute(), lines
        self.session = session
        self._pid = os.getpid() if session is not None else 0

    def session_here(self) -> Session | None:
        """Return the session of this process, started if necessary; None in a worker."""
        if get_worker_info() is not None:
            return None
        if self._pid != os.getpid():
            self._pid, self.session = os.getpid(), self._begin()
        elif self.session is not None:
            self.session.take_place()
        return self.session

    def _begin(self) -> Session | None:
        try:
            rank = here()
            if rank is not None and not chosen_here().holds(rank.rank):
                return None
            session = Session(place_of(self._out), "trace", _name(), lines=self._lines, placed=True)
        except (PipeprofError, OSError) as error:
            enter(str(error))
            say(f"pipeprof: process {os.getpid()} is not observed: {error}")
            return None
        Stops(session.end_by).take()
        ending.before_exit(lambda status: close_for_exit(session, status))
        ending.at_end_of_child(lambda error: session.close(status_of(error), error=error))
        return session


def close_for_exit(session: Session, status: int) -> None:
    """Close the run of a process that ends by `os._exit(status)`."""
    why = f"the script ended by os._exit({status}), and nothing of what it does at its end was done"
    session.amend(lambda meta: replace(meta, warnings=(*meta.warnings, why)))
    session.close("failed" if status else "complete")


def observe_this_process() -> None:
    """Observe this process, which was started with `PIPEPROF_TRACE`."""
    observed = ObservedProcess(local_out(os.environ[TRACE]) or Path(), os.environ.get(LINES, "1") != "0")
    trial = trial_here()
    begin_fixes(trial)
    trying = Trying(trial, observed.session_here)
    atexit.register(_tell_refusal, trying)
    if not os.environ.get(STARTED):  # nothing else reports it
        atexit.register(_tell, observed, os.getpid())


def _tell_refusal(trying: Trying) -> None:
    """Say why the script was ended at a loader."""
    if trying.refusal is not None:
        say(f"pipeprof: {trying.refusal}")


def _tell(observed: ObservedProcess, pid: int) -> None:
    """Say where the run is: once for a job."""
    session, rank = observed.session, here()
    if session is None or os.getpid() != pid or not session.steps.taken:
        return
    if rank is None:
        say(f"pipeprof: see `pipeprof report {address(session.directory)}`")
    elif rank.rank == chosen_here().first:
        say(f"pipeprof: see all ranks with `pipeprof report {address(session.directory.parent)}`")


def _name() -> str:
    """Return the name of the script that runs here."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None) or sys.argv[0]
    return Path(path).name
