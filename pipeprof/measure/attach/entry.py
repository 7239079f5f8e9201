"""Runs inside the job first, as plain source: checks whether there is something to observe, and lets pipeprof
in.

Nothing of pipeprof is imported before that is known; what follows uses only the standard library. The names
`DIRECTORY` and `CONTROL` (the path of control.py) are given.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import Any

DIRECTORY: str = globals()["DIRECTORY"]
CONTROL: str = globals()["CONTROL"]


def enter() -> None:
    """Let pipeprof in, or say why not. Raises nothing."""
    names: dict[str, Any] = {"__name__": "pipeprof_control"}
    try:
        with open(CONTROL) as file:  # noqa: PTH123 - before anything else is imported
            exec(compile(file.read(), CONTROL, "exec"), names)
        control = names["Control"](DIRECTORY)
        request = control.request()
    except Exception:  # pipeprof has given up meanwhile
        return
    if control.is_over(request) == "gone":  # it was killed after it asked, and no one else knows of this
        control.remove()
        return
    if "ask" in request:
        control.say(os.getpid(), state="told", **_place(request["ask"]))
        return
    worker = os.getpid() in request["workers"] or None
    of = os.getpid() if worker else None
    try:
        refused = _refusal(bool(worker)) or _import_pipeprof(request, DIRECTORY, bool(worker))
    except BaseException as error:
        refused = {"why": "failed", "detail": f"{type(error).__name__}: {error}"}
    if refused:
        control.say(of, state="refused", **refused)


def _place(names: list[str]) -> dict[str, Any]:
    """Return what this process knows of its place in a job; `names` are variables that launchers set."""
    is_worker, initialised = True, None
    try:
        data, distributed = sys.modules.get("torch.utils.data"), sys.modules.get("torch.distributed")
        is_worker = data is None or data.get_worker_info() is not None
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            initialised = [distributed.get_rank(), distributed.get_world_size()]
    except Exception:  # torch is being imported, or is on its way out: what is known is all
        pass
    environment = {name: os.environ[name] for name in names if name in os.environ}
    return {"is_worker": is_worker, "initialised": initialised, "environment": environment}


def _refusal(is_worker: bool) -> dict[str, str] | None:
    """Return why there is nothing to observe."""
    loaders = sys.modules.get("torch.utils.data.dataloader")
    if loaders is None:
        return {"why": "no-loader"}
    if is_worker:
        return None
    kinds = (loaders._BaseDataLoaderIter, loaders.DataLoader)
    if not any(issubclass(type(each), kinds) for each in gc.get_objects()):
        return {"why": "no-loader"}
    return None


def _import_pipeprof(request: dict[str, Any], directory: str, is_worker: bool) -> dict[str, str] | None:
    """Import pipeprof and hand over to it; return why that cannot be."""
    began_ns = time.monotonic_ns()
    added = request["path"]
    if added:
        sys.path.append(added)
    try:
        if is_worker:
            from pipeprof.measure.attach.worker import enter_worker

            enter_worker(directory)
        else:
            from pipeprof.measure.attach.inside import enter_job

            enter_job(directory, began_ns)
    except ModuleNotFoundError as error:
        return {"why": "not-importable", "detail": str(error.name), "python": sys.executable}
    finally:
        if added in sys.path:
            sys.path.remove(added)
    return None


enter()
