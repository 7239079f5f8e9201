"""The errors that pipeprof raises on purpose. Each carries its remedy and the exit code that the door uses.

Foreign errors are translated where they enter (`raise ... from error`); they are caught once, in `cli`.
"""

from __future__ import annotations

import signal
from typing import Final

SIGNALLED: Final = 128
"""Shells report a program that a signal has ended with this and the signal's number."""
INTERRUPTED: Final = SIGNALLED + signal.SIGINT
"""Exit code of a program that Ctrl-C has ended, as shells report it."""
READER_GONE: Final = SIGNALLED + 13
"""That of SIGPIPE, which Windows lacks: the reader of the output has gone, as `| head` does."""


def exit_code_of(name: str | None) -> int:
    """Return the exit code that shells report for a signal's name; that of Ctrl-C if there is no such."""
    number = signal.Signals.__members__.get(name or "")
    return INTERRUPTED if number is None else SIGNALLED + number


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


class PipeprofError(Exception):
    """Anything a user can put right. `str()` is the whole message: what, where, what to do."""

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}" if self.remedy else self.problem

    def __reduce__(self) -> tuple[type[PipeprofError], tuple[str, str]]:
        # Errors cross from workers to the main process, so both texts must survive pickling.
        return (type(self), (self.problem, self.remedy))


class ScenarioError(PipeprofError):
    """A scenario file, a `--set`, or a device figure that cannot be meant."""


class DataError(PipeprofError):
    """A data set that cannot be made, found, read or held in memory."""


class SampleError(DataError):
    """A sample that cannot be read or decoded.

    torch rebuilds a worker's error from one string, `traceback ... module.SampleError: message`, of which the
    message is kept.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem.rpartition(f"{__name__}.SampleError: ")[2].strip(), remedy)


class TraceError(PipeprofError):
    """A run directory that cannot be written or read."""


class MeasureError(PipeprofError):
    """A run that cannot start here: no such device, model, callable or start method."""


class InconclusiveError(PipeprofError):
    """`pipeprof check`: the run cannot answer the question."""

    exit_code = 3
