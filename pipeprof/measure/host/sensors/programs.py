"""Names of the other programs that used most of the machine's CPU time while a run was measured."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

MOST_NAMED: Final = 2
LEAST_CORES: Final = 0.1
"""Part of a core that a program keeps busy at least to be named."""
_SHORTEST_S: Final = 1.0
"""Time below which the kernel's ticks of 10 ms are too coarse."""
_LONGEST: Final = 40
"""Characters of a name."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class _Process(NamedTuple):
    """A process as one line of `/proc` describes it."""

    parent: int
    name: str
    cpu_s: float


_Key = tuple[int, int]
"""Number and start time of a process: numbers are used again."""


class Programs:
    """Finds the programs other than a process and its children that use the cores, between two looks at
    `/proc`.

    A look reads one line of each process of the machine; what began and ended in between is not seen.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        pid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc, self._pid, self._clock = proc, os.getpid() if pid is None else pid, clock
        self._began: tuple[float, Mapping[_Key, _Process]] | None = None

    def begin(self) -> None:
        """Take the first look, if none was taken yet."""
        if self._began is None:
            self._began = self._clock(), self._look()

    def busiest(self) -> dict[str, float]:
        """Return the cores that the busiest two programs kept busy since then, by name, the busiest first.

        Empty if nothing is known, or no program kept a tenth of a core busy.
        """
        if self._began is None or self._clock() - self._began[0] < _SHORTEST_S:
            return {}
        seconds, before = self._clock() - self._began[0], self._began[1]
        now = self._look()
        own = self._own(now)
        cores: dict[str, float] = defaultdict(float)
        for (pid, start), process in now.items():
            known = before.get((pid, start))
            used_s = process.cpu_s - (known.cpu_s if known is not None else 0.0)
            if pid not in own and used_s >= LEAST_CORES * seconds / 10:
                cores[self._named(*_whose(now, pid, process))] += used_s / seconds
        first = sorted(cores, key=lambda name: -cores[name])[:MOST_NAMED]
        return {name: cores[name] for name in first if cores[name] >= LEAST_CORES}

    def _own(self, processes: Mapping[_Key, _Process]) -> set[int]:
        """Return the numbers of this process and of all below it."""
        own, before = {self._pid}, 0
        while len(own) > before:
            before = len(own)
            own |= {pid for (pid, _), process in processes.items() if process.parent in own}
        return own

    def _look(self) -> dict[_Key, _Process]:
        return dict(self._processes())

    def _processes(self) -> Iterator[tuple[_Key, _Process]]:
        try:
            numbers = [entry.name for entry in os.scandir(self._proc) if entry.name.isdecimal()]
        except OSError:  # a machine without /proc
            return
        for number in numbers:
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                text = (self._proc / number / "stat").read_text(errors="replace")
                head, _, rest = text.rpartition(")")
                fields = rest.split()  # from field 3 (state) of proc(5) on
                used_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
                name = head.partition("(")[2]
                yield (int(number), int(fields[19])), _Process(int(fields[1]), name, used_s)

    def _named(self, pid: int, name: str) -> str:
        """Return the name of a program, for Python also what it runs, and no other word of its command."""
        said = name
        if name.startswith("python"):
            with suppress(OSError):
                words = (self._proc / str(pid) / "cmdline").read_text(errors="replace").split("\0")
                said = " ".join([name, *_script(words[1:])])
        return "".join(c if c.isprintable() else "?" for c in said)[:_LONGEST]


_WORKER: Final = "pt_data_worker"
"""Title that torch gives to a DataLoader's worker, whatever program it belongs to."""


def _whose(processes: Mapping[_Key, _Process], pid: int, process: _Process) -> tuple[int, str]:
    """Return number and name of the program that a process belongs to: of torch's workers their parent."""
    if process.name == _WORKER:
        for (number, _), each in processes.items():
            if number == process.parent:
                return number, each.name
    return pid, process.name


def _script(words: list[str]) -> Iterator[str]:
    """Yield the file or module that an interpreter was asked to run, if that is its first argument."""
    if words[:1] == ["-m"]:
        words = words[1:2]
        if words and words[0].replace(".", "").isidentifier():
            yield words[0]
    elif words and words[0].endswith(".py"):
        yield Path(words[0]).name
