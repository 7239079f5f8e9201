"""Notes the Python programs that this process starts, to name those that were not observed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import TraceError
from pipeprof.measure.probe.patches import patch, release
from pipeprof.record.plain_files import read_text

_HOLDER: Final = "started"
MOST_NAMED: Final = 8
HOOK_ABSENT: Final = (
    "it did not run pipeprof's start-up hook: install pipeprof in its environment, and hand it PIPEPROF_TRACE"
)


class Started:
    """Notes programs from `begin` until `end`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._programs: dict[int, str] = {}
        """By process, the name of each program of Python that was started."""
        self.file = _new_file()
        """File in which each process that runs the hook enters itself; None if there can be none."""

    def begin(self) -> None:
        """Note each program from now on."""
        patch(_HOLDER, subprocess.Popen, "__init__", self._noting)

    def end(self) -> list[str]:
        """Stop noting. Return the programs that were not observed, each with the reason."""
        release(_HOLDER)
        if self.file is None:
            return []
        reasons = _read_reasons(self.file)
        with suppress(OSError):
            self.file.unlink()
        unseen = [
            f"{name} (process {pid}): {reason}"
            for pid, name in self._programs.items()
            if (reason := reasons.get(pid, HOOK_ABSENT)) is not None
        ]
        unseen += [
            f"process {pid}: {reason}"
            for pid, reason in reasons.items()
            if reason is not None and pid not in self._programs
        ]
        more = [f"{len(unseen) - MOST_NAMED} more processes"] if len(unseen) > MOST_NAMED else []
        return unseen[:MOST_NAMED] + more

    def _noting(self, original: Callable[..., None]) -> Callable[..., None]:
        def start(process: Any, *arguments: Any, **keywords: Any) -> None:
            original(process, *arguments, **keywords)
            if os.getpid() == self._pid:
                self._note(process)

        return start

    def _note(self, process: subprocess.Popen[Any]) -> None:
        words = _words(process.args)
        program = words[0] if words else ""
        with suppress(OSError):  # it has ended already, or this is not Linux
            program = os.readlink(f"/proc/{process.pid}/exe")  # noqa: PTH115
        if Path(program).name.startswith("python"):
            self._programs[process.pid] = _name(words)


def _new_file() -> Path | None:
    try:
        descriptor, name = tempfile.mkstemp(prefix="pipeprof-started-")
    except OSError:  # no temporary directory can be written
        return None
    os.close(descriptor)
    return Path(name)


def _read_reasons(file: Path) -> dict[int, str | None]:
    """Return why each process that ran the start-up hook is not observed; None if it may be."""
    reasons: dict[int, str | None] = {}
    with suppress(OSError, ValueError, TraceError):
        for line in read_text(file).splitlines():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                reasons[int(entry["pid"])] = entry["unobserved"] or reasons.get(int(entry["pid"]))
    return reasons


def _words(command: Any) -> list[str]:
    """Return the words of what was started, as far as they are text."""
    if isinstance(command, str):
        with suppress(ValueError):
            return shlex.split(command)
        return command.split()
    if isinstance(command, Sequence):
        return [os.fsdecode(word) for word in command if isinstance(word, (str, bytes, os.PathLike))]
    return []


def _name(words: Sequence[str]) -> str:
    """Return the program's name alone: what else it was entry may be secret."""
    for before, word in pairwise(words):
        if before == "-m":
            return f"python -m {word}"
        if word == "-c":
            return "python -c …"
        if not word.startswith("-"):
            return f"python {Path(word).name}"
    return "python"
