"""The errors that pipeprof raises on purpose. Each carries its remedy and the exit code that the door uses.

Foreign errors are translated where they enter (`raise ... from error`); they are caught once, in `cli.py`.
"""

from __future__ import annotations


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


class TraceError(PipeprofError):
    """A run directory that cannot be written or read."""


class MeasureError(PipeprofError):
    """A run that cannot start here: no such device, model, callable or start method."""


class GateFailedError(PipeprofError):
    """`pipeprof check`: the run was read and is not good enough."""

    exit_code = 1


class InconclusiveError(PipeprofError):
    """`pipeprof check`: the run cannot answer the question."""

    exit_code = 3
