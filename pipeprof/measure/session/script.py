"""Runs a user's training script, unmodified, with every DataLoader in it observed."""

from __future__ import annotations

import builtins
import os
import runpy
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from pipeprof.environment import leave_alone
from pipeprof.errors import INTERRUPTED, MeasureError, PipeprofError, exit_code_of
from pipeprof.measure.host.telemetry import Telemetry, check_rate
from pipeprof.measure.probe.changes.arguments import means
from pipeprof.measure.probe.changes.limit import PassEnd
from pipeprof.measure.probe.counting.affinity import AffinityWatch
from pipeprof.measure.probe.own_frames import hide_own_frames
from pipeprof.measure.session.interrupts.signals import HeldSignals, Stops
from pipeprof.measure.session.job import directory_for
from pipeprof.measure.session.processes.program import Gathered, Program
from pipeprof.measure.session.processes.trial import TriedChanges, Trying, begin_fixes, handed_on
from pipeprof.measure.session.run_meta import NO_COMMAND, status_of
from pipeprof.measure.session.session import Session
from pipeprof.record.meta import RunMeta
from pipeprof.suggest import nearest

SIGNAL_PATIENCE_S: Final = 1.0
"""Time for the script's other processes if a signal ends it: a kill may follow."""


class Traced(NamedTuple):
    """Outcome of a script."""

    exit_code: int
    in_parent: bool
    """False in a child that the script forked and that has ended: the runs are not the child's."""
    written: bool
    """False in a rank that may not write to the run's directory."""
    runs: Gathered


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Options of one observed script: where its run goes, and what is observed or tried."""

    out: Path | None = None
    """The run directory; None for a new one in `runs/`."""
    name: str | None = None
    """Name of the run; None for the script's."""
    as_module: bool = False
    """True if the target is a module, as with `python -m`."""
    lines: bool = True
    """Sample the lines of code that take the time."""
    telemetry_hz: float = 0.0
    """Sensor readings per second; 0 for none."""
    warmup_steps: int = 0
    files: bool = True
    """Keep the names of some files that batches are made from, for a probe of their storage."""
    kernels: int = 0
    """Steps whose kernels torch.profiler traces."""
    every_batch: bool = False
    """Probe all batches of a long run, whatever that costs."""
    hang_after_s: float | None = None
    """Wait for a batch after which a hang is reported, while it lasts; None for never."""
    keep_command: bool = True
    """Store the arguments that the script was started with."""
    trial: TriedChanges = field(default_factory=TriedChanges)
    """Changes to try on the script."""


def trace_script(
    target: str,
    arguments: Sequence[str],
    options: TraceOptions,
    at_signal: Callable[[Traced], None] | None = None,
    at_os_exit: Callable[[Traced], None] | None = None,
) -> Traced:
    """Run the script or module `target` as `python` would, with its DataLoaders observed.

    The run is written however the script ends; its traceback is printed and its exit code kept. Processes
    that it starts are observed too. If a signal that the script does not handle ends the process, the run is
    closed and `at_signal` is called first; `at_os_exit` is called if the script ends by `os._exit`. Raises
    `MeasureError` for a missing script, an impossible telemetry rate, and a trial that does not fit the
    script's own arguments.
    """
    check_rate(options.telemetry_hz)
    _warn_of_no_threads_of_ours()
    execute = _module(target, arguments) if options.as_module else _script(target, arguments)
    pid = os.getpid()
    session = _session(target, arguments, options)
    program = Program(session, options.lines)

    def traced(code: int) -> Traced:
        return Traced(code, True, session.unwritten is None, program.gathered())

    error: BaseException | None = None
    stops, held = Stops(partial(_end_by, session, program, at_signal)), HeldSignals()
    rate_hz = options.telemetry_hz
    with program, handed_on(options.trial), Telemetry(session.telemetry, rate_hz=rate_hz) as telemetry:
        watched = _Watched(program, options.trial, telemetry if rate_hz else None)
        stops.take()
        if at_os_exit is not None:
            program.at_os_exit(lambda code: at_os_exit(traced(code)))
        try:
            try:
                execute()
            finally:
                held.begin()
        except BaseException as raised:  # SystemExit and Ctrl-C end the script, and not us
            held.begin()  # in case a second Ctrl-C came between the two
            error = _as_interrupted(raised)
    if os.getpid() != pid:
        held.end()
        return Traced(_exit_code(error), False, False, program.own_run())
    error = watched.end(error)
    code = _exit_code(error)
    session.close(status_of(error), error=None if isinstance(error, SystemExit) else error)
    stops.withdraw()
    if held.end():  # a second Ctrl-C: the run is whole, and there is no time for a report
        raise KeyboardInterrupt
    watched.check(code)
    if code == 0 and session.steps.taken:
        watched.probe()
    return traced(code)


def _session(target: str, arguments: Sequence[str], options: TraceOptions) -> Session:
    """Begin the run's session, and the fixes to try: the record names them from its first moment."""
    keep = options.keep_command
    meta = RunMeta(
        script_words=1 + len(arguments) if keep else None,
        command=() if keep else NO_COMMAND,
        tried=begin_fixes(options.trial),
    )
    session = Session(
        options.out or directory_for(options.name or Path(target).stem),
        "trace",
        options.name or target,
        meta,
        lines=options.lines,
        warmup_steps=options.warmup_steps,
        files=options.files,
        kernels=options.kernels,
        every_batch=options.every_batch,
    )
    if options.hang_after_s is not None:
        session.watch_hangs(options.hang_after_s)
    return session


def run_unobserved(target: str, arguments: Sequence[str], as_module: bool = False) -> int:
    """Run a script, or a module, as `python` would, with nothing observed; return its exit code.

    For a rank that was not chosen. Raises `MeasureError` if there is no such script.
    """
    execute = _module(target, arguments) if as_module else _script(target, arguments)
    leave_alone()
    try:
        execute()
    except BaseException as raised:
        return _exit_code(_as_interrupted(raised))
    return 0


def _warn_of_no_threads_of_ours() -> None:
    """Silence Python 3.12's warning about threads in a forking script: the threads are pipeprof's."""
    if sys.version_info >= (3, 12):
        of_fork = r"This process \(pid=\d+\) is multi-threaded, use of fork"
        warnings.filterwarnings("ignore", of_fork, DeprecationWarning)


def _end_by(session: Session, program: Program, report: Callable[[Traced], None] | None, name: str) -> None:
    """Close the run for the signal `name`, which ends the process then, and report."""
    program.let_go()
    session.end_by(name)
    if report is not None:
        runs = program.gathered(patience_s=SIGNAL_PATIENCE_S)
        report(Traced(exit_code_of(name), True, session.unwritten is None, runs))


def _as_interrupted(error: BaseException) -> BaseException:
    """Return the Ctrl-C behind torch's report of a lost worker: it goes to all processes of a terminal."""
    cause = error.__context__
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    is_lost_worker = isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")
    return cause if is_lost_worker and cause is not None else error


class _Watched:
    """Watches a running script: its loaders, what is tried on them, and its CPU affinity."""

    def __init__(self, program: Program, trial: TriedChanges, telemetry: Telemetry | None) -> None:
        self._session, self._trial, self._telemetry = program.session, trial, telemetry
        self._trying = Trying(trial, program.session_here, self._amend_telemetry)
        self._affinity = AffinityWatch()
        self._affinity.start()

    def _amend_telemetry(self) -> None:
        if self._telemetry is not None:
            self._session.amend(self._telemetry.entered)

    def end(self, error: BaseException | None) -> BaseException | None:
        """Release the loaders and undo what was tried. Return the script's error, if it is its own."""
        trying = self._trying
        for word, fix in reversed(self._trial.fixes):
            trying.say(f"--try {word}: {fix.end()}")
        trying.end()
        self._affinity.stop()
        if self._affinity.since is not None:
            self._session.event("bound", detail=self._affinity.since)
        if trying.limit is not None and trying.limit.went_on:
            trying.say("the script went on asking its loaders for batches, and was ended")
        elif trying.limit is not None and _is_by_stop(error):
            trying.say("the script does not expect its loader to end, and was ended by it")
            error = None
        self._amend_telemetry()
        return error

    def probe(self) -> None:
        """Make batches in 1, 2 and 4 processes, if that was asked for. A failure is printed."""
        if not self._trial.probes_scaling:
            return
        trying = self._trying
        trying.say("making batches in 1, 2 and 4 processes, for about 3 s")
        try:
            probe = trying.makings.probe(self._session.directory)
        except PipeprofError as error:
            trying.say(f"the making of batches was not probed: {error}")
            return
        grown = [f"{growth:.2f} times in {n}" for n, growth in probe.growth.items() if n > 1]
        trying.say(f"a batch of {probe.loader} takes its CPU time in one process {', '.join(grown)}")

    def check(self, code: int) -> None:
        """Raise `MeasureError` if a script that ended with `code` made no loader that `--set` names."""
        if self._trying.refusal is not None:
            raise self._trying.refusal
        names = self._trying.construction.names
        if code != 0 or not names:  # it failed, or it was merely the launcher of others
            return
        for asked in self._trial.changes.names:
            if not any(means(asked, name) for name in names):
                raise MeasureError(
                    f"--set {asked}.…: the script has made no loader of that name",
                    nearest(asked, names - {""}),
                )


def _is_by_stop(error: BaseException | None) -> bool:
    """Return True if an error was caused by a pass that pipeprof ended."""
    while error is not None and not isinstance(error, PassEnd):
        error = error.__cause__ or error.__context__
    return error is not None


def _script(target: str, arguments: Sequence[str]) -> Callable[[], None]:
    path = Path(target).absolute()  # as Python has it in __file__
    if path.is_dir() or zipfile.is_zipfile(path):
        return _as_main("__main__", [target, *arguments], target, alter_argv=False)
    try:
        # Without dont_inherit our own `from __future__ import annotations` would turn the script's into text.
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise MeasureError(
            f"{target} cannot be read: {error.strerror}", "give a Python script, or -m and a module"
        ) from error
    except (SyntaxError, ValueError) as error:
        raise MeasureError(f"{target} is not a Python script: {error}", "correct it") from error

    def execute() -> None:
        sys.argv = [target, *arguments]
        sys.path[0] = str(path.resolve().parent)
        exec(code, _fresh_main(_names_of_main(path)))

    return execute


def _names_of_main(path: Path) -> dict[str, Any]:
    """Return the names that `python SCRIPT` gives its `__main__`."""
    loader = SourceFileLoader("__main__", str(path))
    names = {"__file__": str(path), "__builtins__": builtins, "__cached__": None, "__loader__": loader}
    # Python 3.14 makes annotations when they are asked for; before, the module has a dictionary for them.
    return names if sys.version_info >= (3, 14) else {**names, "__annotations__": {}}


def _fresh_main(names: dict[str, Any]) -> dict[str, Any]:
    """Put a new module in the place of `__main__`, and return its dictionary.

    It stays: workers that are spawned look there for the script, and so does what runs at exit.
    """
    main = ModuleType("__main__")
    main.__dict__.update(names)
    sys.modules["__main__"] = main
    return main.__dict__


def _module(target: str, arguments: Sequence[str]) -> Callable[[], None]:
    return _as_main(target, ["-m", *arguments], str(Path.cwd()), alter_argv=True)


def _as_main(module: str, argv: list[str], first_path: str, alter_argv: bool) -> Callable[[], None]:
    """Return a callable that runs a module by the runpy function of `python -m` and `python DIRECTORY`."""

    def execute() -> None:
        sys.argv, sys.path[0] = argv, first_path
        _fresh_main({"__builtins__": builtins})
        runpy._run_module_as_main(module, alter_argv)  # type: ignore[attr-defined]

    return execute


def _exit_code(error: BaseException | None) -> int:
    """Return the exit code that `python` gives, and print the message or traceback that it prints."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    return _print_traceback(error)


def _print_traceback(error: BaseException) -> int:
    """Print the script's traceback as Python does at its end, without our frames. Returns the exit code."""
    hide_own_frames(error)
    trace = error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    sys.last_exc = error  # type: ignore[attr-defined, unused-ignore] # since Python 3.12
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit as asked:
        return _exit_code(asked)
    except BaseException as failed:
        hide_own_frames(failed)
        print("Error in sys.excepthook:", file=sys.stderr)
        traceback.print_exception(failed)
        print("\nOriginal exception was:", file=sys.stderr)
        traceback.print_exception(error)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
