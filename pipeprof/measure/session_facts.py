"""What `run.json` says of a session beside its loaders."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pipeprof.measure.machine import machine_facts, package_versions
from pipeprof.measure.ranks import here, rank_facts
from pipeprof.measure.steal import is_counted

_DROPPED: Final = "records found their buffer full and were dropped"


def session_facts(kind: str, name: str) -> dict[str, Any]:
    """The keys that every run has."""
    return {
        "kind": kind,
        "name": name,
        "created_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": _command(),
        "clock": {"monotonic_ns": time.monotonic_ns(), "unix_ns": time.time_ns()},
        "scenario": None,
        "loaders": [],
        "accelerator": {"kind": "none", "emulated": False},
        "storage": None,
        "machine": machine_facts(),
        "packages": package_versions(),
        "emulated": [],
        "not_observed": not_observed_here(),
        "warnings": [],
        **rank_facts(),
    }


def _command() -> list[str]:
    """What was typed: a program's name is enough, and says nothing of whose machine this is."""
    name = Path(sys.argv[0]).name
    called = ["python", "-m", "pipeprof"] if name == "__main__.py" else [name]
    return [*called, *sys.argv[1:]]


def not_observed_here() -> list[str]:
    """What this platform does not tell, in words for the report."""
    missing = []
    if not os.path.exists("/proc/thread-self/schedstat"):  # noqa: PTH110 - no reason to build a Path
        missing.append("run-queue delay: this kernel has no /proc/thread-self/schedstat")
    if sys.platform != "linux":
        missing.append("bytes from block devices: only Linux counts them")
    if not is_counted():
        missing.append("time that a hypervisor took: this machine does not count it")
    rank = here()
    if rank is not None and rank.local_world_size is None:
        missing.append("ranks on this node: their launcher does not tell, and each counts on all its cores")
    return missing


def status_of(error: BaseException | None) -> str:
    """The status of a run that ended with `error`."""
    if error is None:
        return "complete"
    if isinstance(error, SystemExit):
        return "complete" if error.code in (None, 0) else "failed"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def with_dropped(warnings: Sequence[str], records: int) -> list[str]:
    """`warnings` with the number of records that were dropped by now."""
    return [*(text for text in warnings if not text.endswith(_DROPPED)), f"{records} {_DROPPED}"]


def at_the_end(
    meta: Mapping[str, Any], error: BaseException | None, never_iterated: Sequence[str]
) -> dict[str, Any]:
    """What the end of a run adds to its facts."""
    unseen = [f"{name}: no iterator was made of it while it was observed" for name in never_iterated]
    told: dict[str, Any] = {"not_observed": [*meta["not_observed"], *unseen]}
    if error is not None:
        told["error"] = f"{type(error).__name__}: {error}"
    return told
