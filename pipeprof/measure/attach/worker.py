"""Enters a worker that is already running: the proxies go into the fetcher of torch's loop."""

from __future__ import annotations

import os
import pickle
from typing import Any

from pipeprof.measure.attach.control import Control
from pipeprof.measure.attach.proxies import PRIVATE_OF_WORKER_LOOP, AttachedProbe, loop_frame
from pipeprof.measure.probe.counting import tally


def enter_worker(directory: str) -> None:
    """Begin to observe this worker. Called by its main thread, between two bytecodes."""
    control, pid = Control(directory), os.getpid()
    worker, probe = _handed(control, pid)
    frame = loop_frame()
    if frame is None:
        control.say(pid, state="refused", why="no-loop")
        return
    tally.clear()
    names = frame.f_locals
    under_way = names.get(PRIVATE_OF_WORKER_LOOP[1])
    if isinstance(under_way, int):
        probe.under_way = under_way
    probe.start(worker)
    probe.stay()
    fetcher = names.get(PRIVATE_OF_WORKER_LOOP[2])
    if fetcher is not None:
        probe.dress(fetcher)
    control.say(pid, state="attached")


def _handed(control: Control, pid: int) -> tuple[int, AttachedProbe]:
    handed: Any = pickle.loads((control.directory / f"worker-{pid}.pickle").read_bytes())
    worker, probe = handed
    return worker, probe
