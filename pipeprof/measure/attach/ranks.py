"""Attaches to all ranks of a job on this node at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeprof.errors import MeasureError
from pipeprof.measure.attach.asking import ask
from pipeprof.measure.attach.attach import WORKER_PATIENCE_S, Attached, Wanted, attach
from pipeprof.measure.attach.control import started


def ranks_of(pid: int, on_silence: Callable[[int], None] = lambda pid: None) -> list[int]:
    """Return the ranks that `pid` is one of, or the launcher of, in their order.

    `on_silence` is called with each process near it that may be a rank and does not say so in time. Raises
    `MeasureError` if there are no ranks.
    """
    if started(pid) is None:
        raise MeasureError(f"there is no process {pid}", "give the PID of a rank, or of its launcher")
    by_rank, silent = _by_environment(pid), list[int]()
    if len(by_rank) < 2:  # a rank of a job of one, or the workers of a rank that has set RANK itself
        told, silent = _by_asking(pid)
        by_rank = told or by_rank
    if not by_rank and silent:
        raise MeasureError(
            f"no rank is known: process {_listed(silent)} did not say which it is in {WORKER_PATIENCE_S:g} s",
            "try again: a process answers between two calls of native code",
        )
    if not by_rank:
        raise MeasureError(
            f"process {pid} is neither a rank of a job nor the launcher of ranks", "leave --all-ranks out"
        )
    for each in silent:
        on_silence(each)
    return [by_rank[rank] for rank in sorted(by_rank)]


def _listed(pids: list[int]) -> str:
    return " or ".join(map(str, pids))


def _by_environment(pid: int) -> dict[int, int]:
    """Return the children of one process that were started with a RANK, without asking them.

    A rank's workers have its environment too, and another parent.
    """
    launcher = pid if _rank(_environment(pid)) is None else _parent(pid)
    by_rank = {}
    for child in _children(launcher):
        rank = _rank(_environment(child))
        if rank is not None and started(child) is not None:
            by_rank[rank] = child
    return by_rank


def _by_asking(pid: int) -> tuple[dict[int, int], list[int]]:
    """Return the ranks that say so themselves: `pid` and its children, or else `pid` and its siblings. Return
    the processes among them that did not answer, too.

    A launcher may be a rank too, as Lightning's is. What a rank has started, except for workers, may take
    itself for that rank: the eldest counts. A rank's siblings may be of another job, if a shell has started
    two.
    """
    near, silent = ask([pid, *_children(pid)])
    own = next((told for told in near if told.pid == pid), None)
    if own is not None and all(told.rank == own.rank for told in near):
        beside = ask(_siblings(pid))
        near = [own, *(told for told in beside.ranks if told.job == own.job)]
        silent = beside.silent
    by_rank: dict[int, int] = {}
    for told in near:
        by_rank.setdefault(told.rank, told.pid)
    return by_rank, silent


def _siblings(pid: int) -> list[int]:
    """Return the parent of a process, and the parent's other children."""
    parent = _parent(pid)
    return [] if not parent else [parent, *(child for child in _children(parent) if child != pid)]


def _children(parent: int | None) -> list[int]:
    return sorted(pid for pid in _processes() if _parent(pid) == parent)


def torchrun() -> int:
    """Return the process number of the one torchrun on this node.

    Raises `MeasureError` if none runs here, or several.
    """
    launchers = set()
    for pid in _processes():
        environment = _environment(pid)
        if environment.get("TORCHELASTIC_RUN_ID") and _rank(environment) is not None:
            parent = _parent(pid)
            if parent is not None and _rank(_environment(parent)) is None:  # else pid is a rank's worker
                launchers.add(parent)
    if not launchers:
        raise MeasureError(
            "no job of torchrun is seen on this node",
            "give the PID of a rank, or of its launcher: pipeprof attach --all-ranks PID",
        )
    if len(launchers) > 1:
        raise MeasureError(
            f"{len(launchers)} jobs of torchrun run on this node",
            f"give one of them: pipeprof attach --all-ranks {_listed(sorted(launchers))}",
        )
    return launchers.pop()


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _parent(pid: int) -> int | None:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _rank(environment: dict[str, str]) -> int | None:
    rank = environment.get("RANK", "")
    return int(rank) if rank.isdecimal() else None


def _environment(pid: int) -> dict[str, str]:
    with suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    return {}


def attach_all(
    pids: list[int],
    wanted: Wanted,
    on_entry: Callable[[int, int], None] = lambda pid, workers: None,
    on_hang: Callable[[str], None] = lambda text: None,
) -> list[Attached]:
    """Observe several processes at once, until the time is over or Ctrl-C. The first error is raised.

    `on_entry` is called with each process that is observed, and the number of its workers, as it is entered.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(len(pids), thread_name_prefix="pipeprof-rank") as threads:
        asked = [
            threads.submit(attach, pid, wanted, partial(on_entry, pid), on_hang, stop.is_set) for pid in pids
        ]
        try:
            while not all(each.done() for each in asked):
                time.sleep(0.05)
        except KeyboardInterrupt:
            stop.set()
        return [each.result() for each in asked]
