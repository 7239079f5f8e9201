"""Checks from outside whether a process is a Python job that pipeprof can attach to.

Each reason against it is one `MeasureError`. Nothing here touches the process.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeprof.errors import MeasureError
from pipeprof.measure.attach.control import started

_VERSION: Final = re.compile(r"(?:cpython-|python)(\d)\.?(\d+)")
_PTRACE_SCOPE: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_CAN_TRACE: Final = 1 << 19
"""CAP_SYS_PTRACE in the masks of capabilities."""


def check(pid: int) -> None:
    """Raise `MeasureError` if process `pid` cannot be attached to."""
    if sys.platform != "linux":
        raise MeasureError("attach needs Linux", "start the job under `pipeprof trace`")
    if started(pid) is None:
        raise MeasureError(f"there is no process {pid}", "give the PID of the training process: see `ps -ef`")
    if pid == os.getpid():
        raise MeasureError(f"process {pid} is pipeprof itself", "give the PID of the training process")
    status = _status(pid)
    _check_owner(pid, status)
    if status["Tgid"] not in ("", str(pid)):
        raise MeasureError(f"{pid} is a thread of process {status['Tgid']}", f"give {status['Tgid']}")
    _check_running(pid, status)
    _check_python(pid)
    _check_right(pid, status)


def _status(pid: int) -> dict[str, str]:
    lines = []
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    known = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {"Tgid": "", "Uid": "0", "TracerPid": "0", "State": "", "CapEff": "0", **known}


def _check_owner(pid: int, status: dict[str, str]) -> None:
    uid = int(status["Uid"].split()[0])
    if uid != os.getuid():
        raise MeasureError(
            f"process {pid} belongs to another user (uid {uid})", "run pipeprof as that user: sudo -u USER"
        )


def _check_running(pid: int, status: dict[str, str]) -> None:
    tracer = status["TracerPid"]
    if tracer != "0":
        raise MeasureError(
            f"process {pid} is traced by process {tracer}, a debugger", "detach it, and try again"
        )
    if status["State"].startswith(("T", "t")):
        raise MeasureError(f"process {pid} is stopped", f"let it go on first: kill -CONT {pid}")


def python_version(pid: int) -> tuple[int, int] | None:
    """Return the version of the Python that a process runs, by what it has mapped; else None."""
    try:
        paths = {line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
        paths.add(str(Path(f"/proc/{pid}/exe").readlink()))
    except OSError:
        return None
    names = sorted(path.rpartition("/")[2] for path in paths if path.startswith("/"))
    for name in (*(n for n in names if n.startswith(("python", "libpython"))), *names):
        match = _VERSION.search(name)
        if match:
            return int(match[1]), int(match[2])
    return None


def _check_python(pid: int) -> None:
    version = python_version(pid)
    if version is None:
        raise MeasureError(f"process {pid} is not a Python program", "give the PID of the training process")
    if version != sys.version_info[:2]:
        theirs, ours = ".".join(map(str, version)), ".".join(map(str, sys.version_info[:2]))
        raise MeasureError(
            f"process {pid} runs Python {theirs}, and pipeprof {ours}",
            "run the pipeprof that is installed in the job's own environment",
        )


def _check_right(pid: int, status: dict[str, str]) -> None:
    """Check what the kernel says about tracing; it refuses in other ways only when tracing is attempted."""
    with suppress(OSError, ValueError):
        scope = int(_PTRACE_SCOPE.read_text())
        own = int(_status(os.getpid())["CapEff"], 16)
        if scope == 3 or (scope in (1, 2) and not own & _CAN_TRACE):
            raise no_right(pid)


def no_right(pid: int) -> MeasureError:
    """Return the error for a process that the kernel does not let us trace."""
    return MeasureError(
        f"the kernel does not let pipeprof into process {pid}",
        "run pipeprof as root, or set /proc/sys/kernel/yama/ptrace_scope to 0; in a container it needs "
        "--cap-add=SYS_PTRACE",
    )
