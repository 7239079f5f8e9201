"""Reads the Python stack of another process's main thread, wherever it is and whatever it waits for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeprof.errors import MeasureError
from pipeprof.measure.host import ptrace

PATIENCE_S: Final = 3.0
_SPY_S: Final = 10.0
"""Longest time that py-spy is given: it reads the symbols of all libraries."""
_SOURCE: Final = """
import json, os, sys, threading

def see():
    seen = {"frames": [], "sample": None, "seq": None, "start_ns": None, "file": None}
    frame = sys._current_frames().get(threading.main_thread().ident)
    while frame is not None:
        code, names = frame.f_code, frame.f_locals
        name = code.co_filename
        if not name.startswith("<"):
            seen["frames"].append([name, frame.f_lineno or 0, code.co_qualname])
        if name.endswith(("_utils/fetch.py", "probe/proxies.py", "attach/proxies.py")):
            index = names.get("idx", names.get("index"))
            if seen["sample"] is None and isinstance(index, int):
                seen["sample"] = index
            recorder = names.get("recorder")
            if hasattr(recorder, "start_ns"):
                file = recorder.file
                seen["start_ns"] = recorder.start_ns
                seen["file"] = None if file is None else os.fsdecode(file)
        if code.co_name == "_worker_loop":
            if isinstance(names.get("idx"), int):
                seen["seq"] = names["idx"]
            break
        frame = frame.f_back
    return seen

with open(OUT + ".new", "w") as file:
    json.dump(see(), file)
os.rename(OUT + ".new", OUT)
"""
"""Run in the other process, with `OUT` given. `OUT` is whole from its first moment."""


class LoopStack(NamedTuple):
    """Stack of a main thread, and what its loop makes of a batch."""

    frames: tuple[tuple[str, int, str], ...]
    """File, line and function, innermost first."""
    sample: int | None
    """Index of the sample that is being made."""
    seq: int | None
    """Number of the batch that a worker of torch's makes; None if it makes none."""
    start_ns: int | None
    """Time at which it began with that batch, `CLOCK_MONOTONIC`; None if it is not observed."""
    file: str | None
    """File that was read from last for it."""


def read_stack(pid: int, waits: bool) -> LoopStack | None:
    """Return the stack of process `pid`, which `waits` in a system call or computes; None if not observed.

    The process may be a child of this one, or any that may be traced.
    """
    if not ptrace.is_supported():
        return None
    directory = tempfile.mkdtemp(prefix="pipeprof-stack-")
    try:
        seen = _asked(pid, waits, Path(directory))
    finally:
        for path in Path(directory).iterdir():
            path.unlink()
        Path(directory).rmdir()
    if seen is None:
        return None
    frames = tuple((str(file), int(line), str(function)) for file, line, function in seen.pop("frames"))
    return LoopStack(frames, **seen)


def _asked(pid: int, waits: bool, directory: Path) -> dict[str, Any] | None:
    script, out = directory / "see.py", directory / "seen.json"
    script.write_text(f"OUT = {str(out)!r}\n{_SOURCE}")
    source = f"try:\n exec(open({str(script)!r}).read(),{{}})\nexcept BaseException:\n pass"
    with suppress(OSError, MeasureError, ptrace.StuckError, ptrace.NoRightError):
        ptrace.run_in_main_thread(pid, f"exec({source!r},{{}})", at_once=waits)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError):
                seen: dict[str, Any] = json.loads(out.read_text())
                return seen
            time.sleep(0.02)
    return None


def native_frame(pid: int) -> str | None:
    """Return the innermost native function in which a process's main thread is, as `NAME (LIBRARY)`.

    None if py-spy is not installed, may not look, or sees only the interpreter.
    """
    try:
        native = list(takewhile(lambda frame: frame["module"] is not None, _spied(pid, "--native")))
        named = [frame for frame in native if not frame["name"].startswith("0x")] or native
        return f"{named[0]['name']} ({named[0]['short_filename']})" if named else None
    except _SPY_FAILS:
        return None


def stack_of_stopped(pid: int) -> LoopStack | None:
    """Return the stack of a process that is stopped, without running code in it: py-spy reads its memory.

    None if py-spy is not installed or may not look. The time of the batch and its file are not observed.
    """
    frames, sample, seq = [], None, None
    try:
        for frame in _spied(pid, "--locals", "--nonblocking"):
            names = {each["name"]: each["repr"] or "" for each in frame["locals"] or ()}
            numbers = {name: int(text) for name, text in names.items() if _NUMBER.fullmatch(text)}
            frames.append((str(frame["filename"]), int(frame["line"]), str(frame["name"])))
            if sample is None and frame["filename"].endswith(_MAKERS):
                sample = numbers.get("idx", numbers.get("index"))
            if frame["name"] == "_worker_loop":
                seq = numbers.get("idx")
                break
    except _SPY_FAILS:
        return None
    return LoopStack(tuple(frames), sample, seq, None, None)


_MAKERS: Final = ("_utils/fetch.py", "probe/proxies.py", "attach/proxies.py")
"""Files whose functions call the data set for a sample, with its index as `idx` or `index`."""
_NUMBER: Final = re.compile(r"-?\d{1,18}")
_SPY_FAILS: Final = (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, StopIteration)


def _spied(pid: int, *options: str) -> list[dict[str, Any]]:
    """Return the frames of a main thread as py-spy reports them. Raises one of `_SPY_FAILS`."""
    if (spy := shutil.which("py-spy")) is None:
        raise FileNotFoundError("py-spy")
    command = [spy, "dump", "--json", *options, "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True, timeout=_SPY_S, check=True)
    frames: list[dict[str, Any]] = next(
        thread["frames"] for thread in json.loads(done.stdout) if thread["os_thread_id"] == pid
    )
    return frames


def state_of(pid: int) -> tuple[str, str]:
    """Return the letter of a process's state (R, S, D, T, Z), and the kernel's function it waits in."""
    letter = place = ""
    with suppress(OSError, IndexError):
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        place = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    return letter, place


def descriptors_of(pid: int) -> tuple[int, int] | None:
    """Return how many descriptors a process has open, and its limit; None if not known."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        limit = next(line for line in limits if line.startswith("Max open files")).split()[3]
        return len(os.listdir(f"/proc/{pid}/fd")), int(limit)  # noqa: PTH208
    return None
