"""What the workers were doing when looked at from outside: why one that makes a batch is not on a core.

`/proc/<pid>/stat` and `wchan` tell a disk (D) from a lock, a socket and a sleep (all S). Looked at about 20
times a second while a batch is being made, at 60 to 90 µs each, this becomes the sensors
`worker<N>.state.<what>`: the share of the looks since the last report in which it was so; `<what>` is run,
disk, lock, socket, sleep, pipe or other. Without `/proc` there are none: not observed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

_CHANNELS: Final = (
    ("futex", "lock"),
    ("nanosleep", "sleep"),
    ("wait_woken", "socket"),
    ("sk_wait", "socket"),
    ("inet_", "socket"),
    ("tcp_", "socket"),
    ("unix_", "socket"),
    ("ep_poll", "socket"),
    ("poll_schedule", "socket"),
    ("select", "socket"),
    ("pipe", "pipe"),
    ("flock", "lock"),
    ("locks_lock", "lock"),
)


class Watched(Protocol):
    """One loader's workers."""

    workers: int

    def busy_threads(self) -> list[tuple[int, int]]:
        """Worker number and thread of each worker that makes a batch now."""
        ...


class WorkerStates:
    """Counts looks."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._looks: dict[int, Counter[str]] = {}

    def look(self, watched: Iterable[Watched]) -> None:
        """Look once at each worker that makes a batch."""
        for watch in watched:
            for worker, thread in watch.busy_threads():
                state = self._state(thread)
                if state is not None:
                    self._looks.setdefault(worker, Counter())[state] += 1

    def report(self) -> dict[str, float]:
        """Shares since the last report, by sensor."""
        sensors = {}
        for worker, looks in self._looks.items():
            total = looks.total()
            sensors.update({f"worker{worker}.state.{state}": n / total for state, n in looks.items()})
        self._looks = {}
        return sensors

    def _state(self, thread: int) -> str | None:
        try:
            letter = (self._proc / str(thread) / "stat").read_text().rpartition(")")[2].split()[0]
            if letter == "R":
                return "run"
            if letter == "D":
                return "disk"
            channel = (self._proc / str(thread) / "wchan").read_text()
        except (OSError, IndexError):
            return None
        if channel in ("", "0"):  # it woke up in between, or the kernel does not tell
            return None
        return next((what for mark, what in _CHANNELS if mark in channel), "other")
