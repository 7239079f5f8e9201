"""Attaches to all ranks of a job on this node at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipeprof.errors import MeasureError
from pipeprof.measure.attach.attach import Attached, Wanted, attach
from pipeprof.measure.attach.control import started


def ranks_of(pid: int) -> list[int]:
    """Return the ranks that `pid` is one of, or the launcher of: children of one process that have a RANK.

    A rank's workers have its environment too, and another parent. Raises `MeasureError` where there are none.
    """
    if started(pid) is None:
        raise MeasureError(f"there is no process {pid}", "give the PID of a rank, or of its launcher")
    launcher = _parent(pid) if _environment(pid).get("RANK") else pid
    by_rank = {}
    for child in _processes():
        rank = _environment(child).get("RANK", "")
        if _parent(child) == launcher and rank.isdecimal() and started(child) is not None:
            by_rank[int(rank)] = child
    if not by_rank:
        raise MeasureError(
            f"process {pid} is neither a rank of a job nor the launcher of ranks", "leave --all-ranks out"
        )
    return [by_rank[rank] for rank in sorted(by_rank)]


def torchrun() -> int:
    """Return the process number of the one torchrun on this node.

    Raises `MeasureError` where none runs here, or several.
    """
    launchers = set()
    for pid in _processes():
        environment = _environment(pid)
        if environment.get("TORCHELASTIC_RUN_ID") and environment.get("RANK"):
            parent = _parent(pid)
            if parent is not None and not _environment(parent).get("RANK"):  # else pid is a rank's worker
                launchers.add(parent)
    if not launchers:
        raise MeasureError(
            "no job of torchrun is seen on this node",
            "give the PID of a rank, or of its launcher: pipeprof attach --all-ranks PID",
        )
    if len(launchers) > 1:
        raise MeasureError(
            f"{len(launchers)} jobs of torchrun run on this node",
            f"give one of them: pipeprof attach --all-ranks {' or '.join(map(str, sorted(launchers)))}",
        )
    return launchers.pop()


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _parent(pid: int) -> int | None:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _environment(pid: int) -> dict[str, str]:
    with suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    return {}


def attach_all(
    pids: list[int],
    wanted: Wanted,
    on_entry: Callable[[int], None] = lambda workers: None,
    on_hang: Callable[[str], None] = lambda text: None,
) -> list[Attached]:
    """Observe several processes at once, until the time is over or Ctrl-C. The first error is raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(pids), thread_name_prefix="pipeprof-rank") as threads:
        asked = [threads.submit(attach, pid, wanted, on_entry, on_hang, stop.is_set) for pid in pids]
        try:
            while not all(each.done() for each in asked):
                time.sleep(0.05)
        except KeyboardInterrupt:
            stop.set()
        return [each.result() for each in asked]
