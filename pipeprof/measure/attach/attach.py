"""Attaches to a running job from outside, and waits until it is observed long enough."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeprof import units
from pipeprof.errors import MeasureError
from pipeprof.measure.attach import target
from pipeprof.measure.attach.control import Control, started, word_of
from pipeprof.measure.host import ptrace
from pipeprof.measure.host.telemetry import check_rate
from pipeprof.measure.session.hang import HANG_TXT

ENTER_PATIENCE_S: Final = 60.0
"""Longest time that the job's main thread has to return to Python and let pipeprof in."""
LEAVE_PATIENCE_S: Final = 60.0
WORKER_PATIENCE_S: Final = 7.0
"""A worker that waits for indices looks up every 5 s."""
_SCRIPT: Final = "enter.py"
_FILES: Final = Path(__file__).parent
_REFUSALS: Final[dict[str, tuple[str, str]]] = {
    "no-loader": (
        "process {pid} has no DataLoader of torch",
        "give the process that runs the training loop; of a launcher, one of its children",
    ),
    "observed": ("process {pid} is being observed by pipeprof already", "wait until that has ended"),
    "not-importable": (
        "pipeprof cannot be imported in process {pid}: there is no module {detail} for {python}",
        "install pipeprof there ({python} -m pip install pipeprof), or name a directory with it: --path DIR",
    ),
    "error": ("{problem}", "{remedy}"),
}


class Attached(NamedTuple):
    """Outcome of an observation."""

    directory: Path
    steps: int
    took_ns: int
    """Time for which the job's main thread stood still to let pipeprof in."""
    ended: bool
    """True if the job ended meanwhile."""
    unseen_workers: int
    """Workers that could not be entered."""


class Wanted(NamedTuple):
    """Settings of an observation."""

    out: Path
    seconds: float | None = None
    steps: int | None = None
    lines: bool = True
    telemetry_hz: float = 0.0
    hang_after: float | None = None
    """Seconds without a batch after which to say who holds it."""
    path: Path | None = None
    """Directory that has pipeprof, for a job that lacks it."""


def check(pid: int) -> None:
    """Raise `MeasureError` if process `pid` cannot be attached to. Touches nothing."""
    target.check(pid)
    if _remote_exec() is None and not ptrace.is_supported():
        raise MeasureError(
            "attach needs Python 3.14 on this kind of machine; before that it is for Linux on x86-64",
            "start the job under `pipeprof trace`",
        )


def attach(
    pid: int,
    wanted: Wanted,
    entered: Callable[[int], None] = lambda workers: None,
    on_hang: Callable[[str], None] = lambda text: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Attached:
    """Observe process `pid` and its workers until time or steps are over, `is_stopped()`, or Ctrl-C.

    `entered` is called with the number of observed workers, and `on_hang` with a loop that hangs. Raises
    `MeasureError` for a process that cannot be attached to, which is left as it was.
    """
    check(pid)
    check_rate(wanted.telemetry_hz)
    control = Control.make(
        {
            "out": str(wanted.out.absolute()),
            "steps": wanted.steps,
            "lines": wanted.lines,
            "telemetry_hz": wanted.telemetry_hz,
            "hang_after": wanted.hang_after,
            "path": None if wanted.path is None else str(wanted.path.absolute()),
            "workers": [],
        }
    )
    try:
        write_script(control)  # once: a process may be reading it when the next is let in
        state = _enter_job(pid, control)
        try:
            unseen = _enter_workers(control, state["workers"])
            entered(len(state["workers"]) - unseen)
            _wait(pid, control, wanted.seconds, Path(state["directory"]), on_hang, is_stopped)
        except KeyboardInterrupt:
            unseen = 0
        control.stop()
        left = _wait_left(pid, control)
    finally:
        control.remove()
    return Attached(Path(state["directory"]), left.get("steps", 0), state["took_ns"], not left, unseen)


_AGAIN_S: Final = 0.1
"""Time between two attempts to enter a job that is making an iterator, or that another pipeprof is
leaving."""


def _enter_job(pid: int, control: Control) -> dict[str, Any]:
    deadline = time.monotonic() + ENTER_PATIENCE_S
    state: dict[str, Any] = {"state": "later"}
    while word_of(state) == "later" and time.monotonic() < deadline:
        control.forget_state()
        inject(pid, control)
        state = control.wait(("attached", "refused", "later"), deadline - time.monotonic())
        if word_of(state) == "later":
            time.sleep(_AGAIN_S)
    if word_of(state) in ("", "later"):
        if started(pid) is None:
            raise MeasureError(f"process {pid} has ended", "")
        raise MeasureError(
            f"the main thread of process {pid} did not come back to Python in {_seconds(ENTER_PATIENCE_S)}",
            "it is in a long native call; try again later",
        )
    if state["state"] == "refused":
        problem, remedy = _REFUSALS.get(
            state["why"],
            ("pipeprof could not enter process {pid}: {detail}", "start it under `pipeprof trace`"),
        )
        given = {"detail": "", "python": "python", "problem": "", "remedy": "", **state, "pid": pid}
        raise MeasureError(problem.format_map(given), remedy.format_map(given))
    return state


def _enter_workers(control: Control, pids: list[int]) -> int:
    """Enter the workers; return how many could not be. One that has ended meanwhile makes no batch."""
    control.name_workers(pids)
    waiting = []
    for pid in pids:
        with suppress(MeasureError, OSError, ptrace.StuckError):
            inject(pid, control)
            waiting.append(pid)
    deadline = time.monotonic() + WORKER_PATIENCE_S
    entered = set()
    for pid in waiting:
        state = control.wait(("attached", "refused"), max(0.1, deadline - time.monotonic()), of=pid)
        entered |= {pid} if word_of(state) == "attached" else set()
    return sum(pid not in entered and started(pid) is not None for pid in pids)


def write_script(control: Control) -> None:
    """Write the code that an entered process runs: the entry, with the names that it needs."""
    names = {"DIRECTORY": str(control.directory), "CONTROL": str(_FILES / "control.py")}
    entry = str(_FILES / "entry.py")
    (control.directory / _SCRIPT).write_text(f"exec(open({entry!r}).read(), {names!r})\n")


def inject(pid: int, control: Control) -> None:
    """Have the main thread of process `pid` run the entry. Raises `MeasureError`."""
    script = control.directory / _SCRIPT
    source = f"try:\n exec(open({str(script)!r}).read(),{{}})\nexcept BaseException:\n pass"
    try:
        if (remote_exec := _remote_exec()) is not None:
            remote_exec(pid, str(script))
        else:
            ptrace.run_in_main_thread(pid, f"exec({source!r},{{}})")
    except (PermissionError, ptrace.NoRightError) as error:
        raise target.no_right(pid) from error
    except RuntimeError as error:  # of remote_exec
        raise MeasureError(
            f"Python does not let pipeprof into process {pid}: {error}",
            "start the job without PYTHON_DISABLE_REMOTE_DEBUG and -X disable-remote-debug",
        ) from error
    except ProcessLookupError as error:
        raise MeasureError(f"process {pid} has ended", "") from error
    except ptrace.StuckError as error:
        raise MeasureError(
            f"the main thread of process {pid} has made no system call for {_seconds(ptrace.PATIENCE_S)}",
            "it computes without a pause; try again later",
        ) from error


def may_run_late() -> bool:
    """Return True if a process runs the entry when it next runs Python code, however long that takes.

    Python 3.14 prints an error in that process if the script is gone by then.
    """
    return _remote_exec() is not None


def _remote_exec() -> Callable[[int, str], None] | None:
    """Return Python's own way in, of 3.14 and newer."""
    return getattr(sys, "remote_exec", None)


def _seconds(seconds: float) -> str:
    return units.duration(seconds * units.NS_PER_S)


def _wait(
    pid: int,
    control: Control,
    seconds: float | None,
    directory: Path,
    on_hang: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> None:
    deadline = None if seconds is None else time.monotonic() + seconds
    hangs, read = directory / HANG_TXT, 0
    while not is_stopped() and (deadline is None or time.monotonic() < deadline):
        if hangs.exists() and (text := hangs.read_text()[read:]):
            read += len(text)
            on_hang(text.strip())
        if word_of(control.state()) == "left" or started(pid) is None:
            return
        time.sleep(0.05)


def _wait_left(pid: int, control: Control) -> dict[str, Any]:
    """Wait until the job's side has left; empty if the job has ended."""
    deadline = time.monotonic() + LEAVE_PATIENCE_S
    while time.monotonic() < deadline and started(pid) is not None:
        state = control.wait(("left",), 0.2)
        if state:
            return state
    return control.wait(("left",), 0.1)


def job_name(pid: int) -> str:
    """Return a name for the run of a process: its script's."""
    with suppress(OSError):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        for argument in arguments[1:]:
            if argument.endswith(".py"):
                return Path(argument).stem
    return "attach"
