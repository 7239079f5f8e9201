"""Content of `run.json` about a session, apart from its loaders."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from pipeprof.measure.host.cgroups import read_limits
from pipeprof.measure.host.machine import machine_facts, package_versions
from pipeprof.measure.host.mounts import SHARED_MEMORY, shared_memory_bytes
from pipeprof.measure.host.sensors.processors import counts_steal
from pipeprof.measure.probe.counting.losses import NO_ROOM
from pipeprof.measure.probe.own_cost import own_cost
from pipeprof.measure.session.job import here, with_rank
from pipeprof.record.meta import AcceleratorMeta, ClockMeta, RunMeta
from pipeprof.record.schema import Status
from pipeprof.units import plural, size
from pipeprof.vocabulary import mechanisms

NO_COMMAND: Final = ("(left out)",)
"""The command of a run that does not keep it."""
NO_ACCELERATOR: Final = AcceleratorMeta(kind="none", emulated=False)


def begun(given: RunMeta, kind: str, name: str, warmup_steps: int) -> RunMeta:
    """Return `given`, the facts from an entry point about its run, with those that every run records at its
    start."""
    return replace(
        with_rank(given),
        kind=kind,
        name=name,
        created_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=given.command or tuple(_command()),
        clock=ClockMeta(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
        accelerator=given.accelerator if given.accelerator.known else NO_ACCELERATOR,
        machine=machine_facts(),
        reading=replace(given.reading, io_limits=tuple(read_limits())),
        packages=package_versions(),
        not_observed=(*given.not_observed, *not_observed_here()),
        overhead=own_cost(),
        warmup_steps=warmup_steps,
    )


def _command() -> list[str]:
    """Return the command as typed: a program's name is enough, and says nothing about the owner of this
    machine."""
    name = Path(sys.argv[0]).name
    called = ["python", "-m", "pipeprof"] if name == "__main__.py" else [name]
    return [*called, *sys.argv[1:]]


def not_observed_here() -> list[str]:
    """List what this platform does not measure, in words for the report."""
    missing = []
    if not os.path.exists("/proc/thread-self/schedstat"):  # noqa: PTH110 - no reason to build a Path
        missing.append("run-queue delay: this kernel has no /proc/thread-self/schedstat")
    if sys.platform != "linux":
        missing.append("bytes from block devices: only Linux counts them")
    if not counts_steal():
        missing.append("time that a hypervisor took: this machine does not count it")
    rank = here()
    if rank is not None and rank.local_world_size is None:
        missing.append("ranks on this node: their launcher does not say, and each counts on all its cores")
    return missing


def status_of(error: BaseException | None) -> Status:
    """Return the status of a run that ended with `error`."""
    if error is None:
        return "complete"
    if isinstance(error, SystemExit):
        return "complete" if error.code in (None, 0) else "failed"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def dropped_warning(records: int) -> str:
    """Return the warning about records that were dropped by now."""
    return f"{plural(records, 'record')} found their buffer full and were dropped"


def described(error: BaseException | None) -> str | None:
    """Return an error as a run keeps it, without its frames: they hold the user's iterators, and so their
    workers."""
    if error is None:
        return None
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a `__str__` of the user's may raise anything
        return f"{type(error).__name__}: its text cannot be read"


def no_room_warning(error: str | None) -> str | None:
    """Return the warning about a run that ended because /dev/shm was full, with its size and the remedy."""
    if error is None or not NO_ROOM.search(error):
        return None
    room = shared_memory_bytes()
    has = "" if room is None else f", which has {size(room[1])}, {size(room[0])} of them free now"
    return (
        f"the batches of the workers found no room in {SHARED_MEMORY}{has}: {mechanisms.MORE_SHARED_MEMORY}"
    )


def ended(meta: RunMeta, error: str | None, never_iterated: Sequence[str]) -> RunMeta:
    """Return `meta` with what is known when the run has ended, by the error that ended it."""
    unseen = (f"{name}: no iterator was made of it while it was observed" for name in never_iterated)
    no_room = no_room_warning(error)
    if any(mechanisms.MORE_SHARED_MEMORY in warning for warning in meta.warnings):  # of the batch itself
        no_room = None
    return replace(
        meta,
        not_observed=(*meta.not_observed, *unseen),
        warnings=meta.warnings if no_room is None else (*meta.warnings, no_room),
        error=error,
    )
