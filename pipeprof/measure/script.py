"""Runs somebody's training script, unmodified, with every DataLoader in it observed."""

from __future__ import annotations

import builtins
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from pipeprof.errors import MeasureError
from pipeprof.measure import hook
from pipeprof.measure.ranks import directory_for
from pipeprof.measure.session import Session
from pipeprof.measure.session_facts import status_of
from pipeprof.measure.telemetry import Telemetry, check_rate

INTERRUPTED: int = 130
"""What a shell reports of a program that Ctrl-C has ended."""


class Traced(NamedTuple):
    """What a script came to."""

    directory: Path
    exit_code: int
    steps: int
    in_parent: bool
    """False in a child that the script forked and that came to its end: the run is not the child's."""
    written: bool = True
    """False in a rank that may not write to the run's directory."""


def trace_script(
    target: str,
    arguments: Sequence[str],
    out: Path | None,
    as_module: bool = False,
    telemetry_hz: float = 0.0,
) -> Traced:
    """Run the script `target`, or the module with `as_module`, as `python` would run it.

    The run is written to `out`, or to a new directory in `runs/`, whatever the script ends with; its
    traceback is printed and its exit code kept. Sensors are read `telemetry_hz` times a second. Raises
    `MeasureError` where there is no such script, and for a rate that cannot be.
    """
    check_rate(telemetry_hz)
    execute = _module(target, arguments) if as_module else _script(target, arguments)
    pid = os.getpid()
    session = Session(out or directory_for(Path(target).stem), "trace", target)
    hook.observe_all(session.watch_of)
    error: BaseException | None = None
    with Telemetry(session.telemetry, rate_hz=telemetry_hz) as telemetry:
        try:
            execute()
        except BaseException as raised:  # SystemExit and Ctrl-C end the script, and not us
            error = raised
    if os.getpid() != pid:
        return Traced(session.directory, _exit_code(error), 0, in_parent=False)
    hook.observe_no_more(session.watch_of)
    code = _exit_code(error)
    if telemetry_hz:
        telemetry.tell(session.writer.meta)
    session.close(status_of(error), error=None if isinstance(error, SystemExit) else error)
    return Traced(session.directory, code, session.steps_taken, True, session.unwritten is None)


def _script(target: str, arguments: Sequence[str]) -> Callable[[], None]:
    path = Path(target).absolute()  # as Python has it in __file__
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except OSError as error:
        raise MeasureError(
            f"{target} cannot be read: {error.strerror}", "give a Python script, or -m and a module"
        ) from error
    except (SyntaxError, ValueError) as error:
        raise MeasureError(f"{target} is no Python script: {error}", "correct it") from error

    def execute() -> None:
        sys.argv = [target, *arguments]
        sys.path[0] = str(path.resolve().parent)
        main = ModuleType("__main__")
        main.__dict__.update(__file__=str(path), __builtins__=builtins, __cached__=None)
        # It stays: workers that are spawned look there for the script, and so does what runs at exit.
        sys.modules["__main__"] = main
        exec(code, main.__dict__)

    return execute


def _module(target: str, arguments: Sequence[str]) -> Callable[[], None]:
    def execute() -> None:
        sys.argv = [target, *arguments]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(target, run_name="__main__", alter_sys=True)

    return execute


def _exit_code(error: BaseException | None) -> int:
    """The exit code that `python` gives, with the message or traceback that it prints."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    _print_traceback(error)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _print_traceback(error: BaseException) -> None:
    """The script's own traceback, without the frames that are ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        # the default hook prints the exception's own traceback, whatever it is handed
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    except Exception:
        traceback.print_exception(error)
