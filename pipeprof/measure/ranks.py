"""Which rank of a job this process is, and where its part of the job's run is written.

Under torchrun, or whatever else sets torch's environment variables, each rank writes an ordinary run below
the job's directory. The ranks agree on nothing and exchange nothing for it: a marker, made by whichever comes
first, tells a job from another that was given the same directory.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from pipeprof.errors import TraceError
from pipeprof.measure.progress import say
from pipeprof.measure.scratch import new_scratch
from pipeprof.trace import RUN_JSON, RUNS, TraceWriter, attempt_of, boot_id, new_directory, part_of

JOB_JSON: Final = "job.json"
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_SCHEDULERS: Final = ("SLURM_HET_JOB_ID", "SLURM_JOB_ID", "PMIX_NAMESPACE", "PBS_JOBID", "LSB_JOBID")
"""Where schedulers and launchers name a job, in words that all its ranks share."""
_PATIENCE_S: Final = 5.0
"""For a marker that another rank is writing."""


class Rank(NamedTuple):
    """This process's place in a job of several."""

    rank: int
    world_size: int
    local_rank: int | None
    local_world_size: int | None
    """Ranks of the job on this node; None where the launcher does not tell: then merging counts them."""
    node: int | None
    restart: int
    """How often torchrun has started the job again."""


class Opened(NamedTuple):
    """A run that can be written."""

    writer: TraceWriter
    scratch: Path | None
    """Its directory, where it is a temporary one."""
    unwritten: TraceError | None
    """Why it is temporary although a directory was named: one rank alone does not end its job for that."""


def here() -> Rank | None:
    """The rank of this process, from the environment or from an initialised torch.distributed.

    None outside a job, and in a job of one.
    """
    rank, world = _number("RANK"), _number("WORLD_SIZE")
    if rank is None or world is None:
        rank, world = _initialised()
    if rank is None or world is None or world < 2:
        return None
    local, per_node = _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")
    if per_node is None and os.environ.get("MASTER_ADDR") in _LOOPBACK:
        per_node = world  # ranks that meet at a node's own address are all there
    node = next((found for name in ("GROUP_RANK", "NODE_RANK") if (found := _number(name)) is not None), None)
    if node is None and per_node:
        node = rank // per_node
    return Rank(rank, world, local, per_node, node, _number("TORCHELASTIC_RESTART_COUNT") or 0)


def rank_facts() -> dict[str, Any]:
    """What `run.json` says of this process's place in its job; nothing outside a job."""
    found = here()
    if found is None:
        return {}
    host = {"host": socket.gethostname(), "boot_id": boot_id(), "own_cores": _has_own_cores()}
    return {**found._asdict(), **host, "job": _job(found)}


def _has_own_cores() -> bool | None:
    """Whether this rank was bound to some of the cores that its launcher may use; None is not observed."""
    with suppress(OSError, psutil.Error, AttributeError):
        return set(psutil.Process().cpu_affinity()) < set(psutil.Process(os.getppid()).cpu_affinity())
    return None


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


def _initialised() -> tuple[int, int] | tuple[None, None]:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None, None
    return distributed.get_rank(), distributed.get_world_size()


# -- directories -------------------------------------------------------------------------------------------


def directory_for(name: str) -> Path:
    """A new run directory below `runs/`; one that all ranks of a job name alike."""
    found = here()
    if found is None:
        return new_directory(name)
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if _torchrun() and found.local_world_size == found.world_size:
        begun = datetime.fromtimestamp(_launched())
        job = f"{begun:%Y%m%d-%H%M%S}-{os.getppid()}"
    else:
        job = run_id if run_id not in ("", "none") else _master()
    return RUNS / re.sub(r"[^\w.-]", "_", f"{name}-{job}")


def job_directory(out: Path) -> Path:
    """Where all ranks write: in `out`, or in `restart-<n>` below it where torchrun has begun again."""
    found = here()
    return out if found is None else attempt_of(out, found.restart)


def own_directory(out: Path) -> Path:
    """Where this process writes a run that goes to `out`: there, or in its own part of it.

    Raises `TraceError` where `out` is another job's or holds a plain run.
    """
    found = here()
    if found is None:
        return out
    directory = job_directory(out)
    if (directory / RUN_JSON).exists():
        raise TraceError(f"{directory} already holds a run", "choose another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _claim(directory, JOB_JSON, _job(found))
        if _torchrun():
            _claim(directory, f"node-{found.node}.json", _node())
    except FileExistsError as error:
        raise TraceError(f"{directory} is no directory", "choose another --out") from error
    except OSError as error:
        raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error
    return part_of(directory, found.rank)


def _job(found: Rank) -> dict[str, Any]:
    """What all ranks of a job know and no other job does."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    scheduled = next((f"{name} {os.environ[name]}" for name in _SCHEDULERS if os.environ.get(name)), None)
    return {"run_id": run_id, "master": _master(), "world_size": found.world_size, "scheduled": scheduled}


def _node() -> dict[str, Any]:
    """What the ranks that one torchrun has started know, and those of another do not: it, and its start."""
    return {"host": socket.gethostname(), "launcher": os.getppid(), "started": round(_launched(), 2)}


def _torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _launched() -> float:
    return float(psutil.Process(os.getppid()).create_time())


def _master() -> str:
    return f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"


def _claim(directory: Path, name: str, mine: Mapping[str, Any]) -> None:
    """Put the marker `name` down, or find one's own there. A marker is whole from the moment it is there,
    but for file systems without links.
    """
    final = directory / name
    temporary = directory / f".{name}.{socket.gethostname()}.{os.getpid()}"
    text = json.dumps(mine)
    if not final.exists():
        try:
            temporary.write_text(text)
            _put(temporary, final, text)
        finally:
            temporary.unlink(missing_ok=True)
    theirs = _marker(final)
    if theirs != dict(mine):
        told = ", ".join(f"{key} {theirs.get(key)}" for key in mine)
        raise TraceError(
            f"{directory} is the run directory of another job ({told})", "give each job an --out of its own"
        )


def _marker(path: Path) -> dict[str, Any]:
    """What a marker says. Where there are no links, it may have been begun and not yet be whole."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        if time.monotonic() > deadline:
            raise TraceError(f"{path} is damaged", "delete it, or choose another --out")
        time.sleep(0.02)


def _put(temporary: Path, final: Path, text: str) -> None:
    with suppress(FileExistsError):
        try:
            final.hardlink_to(temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with final.open("x") as file:  # this file system knows no links: nearly as good
                file.write(text)


def open_writer(out: Path | str | None, meta: Mapping[str, Any]) -> Opened:
    """Begin a run in `out`, in this rank's part of it, or without `out` in a temporary directory.

    A rank that may not write goes on unrecorded and says so: were it to end, its job would end with it.
    Raises `TraceError` where the directory is another's, and outside a job where it cannot be written.
    """
    if out is None:
        scratch = new_scratch()
        return Opened(TraceWriter(scratch, meta), scratch, None)
    try:
        return Opened(TraceWriter(own_directory(Path(out)), meta), None, None)
    except TraceError as error:
        forbidden = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileExistsError)
        found = here()
        if found is None or not forbidden:
            raise
        say(f"pipeprof: rank {found.rank} goes on and is not recorded: {error}")
        scratch = new_scratch()
        return Opened(TraceWriter(scratch, meta), scratch, error)
