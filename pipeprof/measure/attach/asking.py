"""Asks processes from inside which rank of which job they are: a rank may say so only in its own code.

The environment a process was started with can be read from outside; what it has set in `os.environ` since,
and what torch.distributed knows, cannot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeprof.errors import MeasureError
from pipeprof.measure.attach.attach import WORKER_PATIENCE_S, inject, may_run_late, write_script
from pipeprof.measure.attach.control import Control, started, word_of
from pipeprof.measure.host import ptrace
from pipeprof.measure.session.launchers import LAUNCHERS, TORCH, RankPlace, completed, place_in

_PORT: Final = "MASTER_PORT"
_LIBRARY: Final = "libtorch"


class RankAnswer(NamedTuple):
    """A rank, as it describes itself."""

    pid: int
    rank: int
    job: tuple[int | None, str]
    """Number of its job's ranks, and the port at which they meet, if the environment has it."""


class Answers(NamedTuple):
    """Answers of some processes about themselves, in their order."""

    ranks: list[RankAnswer]
    silent: list[int]
    """Processes with torch that did not answer in time, as in a long native call: they may be ranks."""


def ask(pids: Iterable[int]) -> Answers:
    """Ask processes which rank they are.

    A process without torch is not asked; a loader's worker is no rank.
    """
    asked = [pid for pid in pids if pid != os.getpid() and started(pid) is not None and _has_torch(pid)]
    if not asked:
        return Answers([], [])
    control = Control.make({"workers": [], "ask": [*_names(), _PORT]})
    answers: list[dict[str, Any]] = []
    try:
        write_script(control)
        with ThreadPoolExecutor(len(asked), thread_name_prefix="pipeprof-ask") as threads:
            answers = list(threads.map(lambda pid: _answer(pid, control), asked))
    finally:
        if (answers and all(answers)) or not may_run_late():
            control.remove()  # else the one that answers last does so, or the next attach
    read = [_read_answer(pid, answer) for pid, answer in zip(asked, answers, strict=True)]
    silent = [pid for pid, answer in zip(asked, answers, strict=True) if not answer and started(pid)]
    return Answers([rank for rank in read if rank is not None], silent)


def _names() -> list[str]:
    """Return the environment variables in which any launcher gives a rank its place."""
    fields = ("rank", "world_size", "local_rank", "local_world_size", "node")
    names = {getattr(launcher, field) for launcher in LAUNCHERS for field in fields}
    return sorted(names - {""})


def _answer(pid: int, control: Control) -> dict[str, Any]:
    with suppress(MeasureError, OSError, ptrace.StuckError):
        inject(pid, control)
        deadline = time.monotonic() + WORKER_PATIENCE_S
        while started(pid) is not None and time.monotonic() < deadline:
            if word_of(answer := control.wait(("told",), 0.1, of=pid)):
                return answer
    return {}


def _read_answer(pid: int, answer: dict[str, Any]) -> RankAnswer | None:
    if not answer or answer["is_worker"]:
        return None
    environment = answer["environment"]
    place = place_in(environment, (TORCH,)) or _initialised(answer) or place_in(environment, LAUNCHERS[1:])
    if place is None or not place.is_of_several:
        return None
    return RankAnswer(pid, place.rank, (place.world_size, environment.get(_PORT, "")))


def _initialised(answer: dict[str, Any]) -> RankPlace | None:
    known = answer["initialised"]
    return None if known is None else completed(answer["environment"], TORCH, *known)


def _has_torch(pid: int) -> bool:
    with suppress(OSError):
        return _LIBRARY in Path(f"/proc/{pid}/maps").read_text()
    return False
