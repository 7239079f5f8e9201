"""Fresh processes of a user's script, traced for some seconds with other loader arguments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeprof import units
from pipeprof.errors import MeasureError
from pipeprof.record import reader
from pipeprof.record.reader import Run

_LOOK_EVERY_S: Final = 0.1
_MEMORY_EVERY_S: Final = 0.5
_PATIENCE_S: Final = 300.0
"""Seconds beyond those requested after which a script that gives no batch is abandoned."""
_END_S: Final = 5.0
"""Seconds that a process has to end by itself."""


@dataclass(frozen=True, slots=True)
class Script:
    """Script, or module, with its arguments, as `python` runs it here."""

    target: str
    arguments: tuple[str, ...] = ()
    as_module: bool = False
    settings: tuple[str, ...] = ()
    """Settings of loaders that stay the same in all trials, as `trace --set` takes them."""
    tries: tuple[str, ...] = ()
    """Fixes that are not arguments and are tried in all trials, as `trace --try` takes them."""

    def words(self, settings: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """Return the arguments of `pipeprof trace`."""
        chosen = [part for each in (*self.settings, *settings) for part in ("--set", each)]
        chosen += [part for each in self.tries for part in ("--try", each)]
        return [*options, *chosen, *(["-m"] if self.as_module else []), self.target, *self.arguments]


def trace_once(
    script: Script,
    settings: Sequence[str],
    seconds: float,
    out: Path,
    warmup_steps: int,
    max_memory_bytes: int | None = None,
) -> Run:
    """Run the script for a number of seconds of its loop, then end it; return what was recorded.

    What it prints goes to a file beside the run. Raises `MeasureError` if it fails, gives no batch, or all of
    its processes together take more than `max_memory_bytes`.
    """
    options = ["--quiet", "--no-report", "--no-lines", "--out", str(out), "--then-exit"]
    options += ["--seconds", f"{seconds:g}", "--warmup-steps", str(warmup_steps)]
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    command = [sys.executable, "-m", "pipeprof", "trace", *script.words(settings, options)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait(process, seconds + _PATIENCE_S, max_memory_bytes)
        finally:
            _end(process)
    if process.returncode != 0:
        raise MeasureError(f"the script failed: {_reason(log, process.returncode)}", f"see {log}")
    return reader.load(out)


def _wait(process: subprocess.Popen[bytes], patience_s: float, max_memory_bytes: int | None) -> None:
    deadline = time.monotonic() + patience_s
    look_at = time.monotonic()
    while process.poll() is None:
        time.sleep(_LOOK_EVERY_S)
        now = time.monotonic()
        if now > deadline:
            raise MeasureError("the script did not come to its end", "give a larger budget")
        if max_memory_bytes is not None and now >= look_at:
            look_at = now + _MEMORY_EVERY_S
            taken = memory_of_session(process.pid)
            if taken > max_memory_bytes:
                raise MeasureError(
                    f"it takes {units.size(taken)} of memory, more than {units.size(max_memory_bytes)}",
                    "allow more by --max-memory",
                )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started: nothing outlives a trial."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    process.wait()


def memory_of_session(leader: int) -> int:
    """Return the bytes of memory that the processes of a session take: what they share counts once."""
    taken = 0
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                rows = (directory / "smaps_rollup").read_text().splitlines()
                taken += next(1024 * int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return taken


def _reason(log: Path, code: int) -> str:
    """Return the last line that the script wrote, or pipeprof's if it refused something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    of_pipeprof = [line for line in lines if line.startswith("pipeprof: ")]
    of_script = [line for line in lines if not line.startswith("pipeprof: ")]
    rows = of_pipeprof if code == MeasureError.exit_code and of_pipeprof else of_script
    return units.printable(rows[-1].removeprefix("pipeprof: ")) if rows else f"exit code {code}"
