"""Work on many ranks, shared among the cores by forked copies of this process.

A copy has all that was read so far in memory that it shares with its parent, and sends back what it made.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

Made = TypeVar("Made")
MOST_PROCESSES: Final = 8
FEWEST_RANKS: Final = 32
"""Ranks below which a copy of the process costs more than it saves."""


def shared_out(work: Callable[[Sequence[int]], Made], count: int) -> list[Made]:
    """Return what `work` makes of the numbers below `count`, in parts: each once, in one part or another.

    What it raises in a copy is raised here. The work of a copy that died is done here.
    """
    processes = _processes(count)
    parts = [range(first, count, processes) for first in range(processes)]
    children = [_started(work, part) for part in parts[1:]]
    try:
        made = [work(parts[0])]
        for part, (process, receiver) in zip(parts[1:], children, strict=True):
            made.append(_received(receiver, work, part))
            process.join()
        return made
    finally:
        for process, receiver in children:
            receiver.close()
            process.kill()
            process.join()


def _processes(count: int) -> int:
    """Return how many processes are to share the work; one if this process cannot be copied safely."""
    alone = threading.active_count() == 1 and not multiprocessing.current_process().daemon
    if count < FEWEST_RANKS or not alone or not hasattr(os, "fork"):
        return 1
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def _started(work: Callable[[Sequence[int]], Any], part: Sequence[int]) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, work, part), daemon=True)
    with warnings.catch_warnings():  # of threads: those of Arrow and numpy, which are idle now
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return process, receiver


def _work(sender: Connection, work: Callable[[Sequence[int]], Any], part: Sequence[int]) -> None:
    made: tuple[Any, Exception | None]
    try:
        made = work(part), None
    except Exception as error:
        made = None, error
    with suppress(OSError):  # the parent has ended
        sender.send(made)


def _received(receiver: Connection, work: Callable[[Sequence[int]], Made], part: Sequence[int]) -> Made:
    try:
        made, error = receiver.recv()
    except (EOFError, OSError):
        return work(part)
    if error is not None:
        raise error
    result: Made = made
    return result
