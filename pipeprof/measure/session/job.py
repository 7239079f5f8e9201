"""Rank of this process in a job, and the directory of its part of the job's run.

Under torchrun, or anything else that sets torch's environment variables, each rank writes an ordinary run
below the job's directory. The ranks agree on nothing and exchange nothing for it: a marker, made by whichever
comes first, distinguishes a job from another that was given the same directory.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from pipeprof.errors import TraceError
from pipeprof.measure.progress import say
from pipeprof.measure.session.launchers import (
    KUBERNETES,
    LAUNCHERS,
    TORCH,
    RankPlace,
    completed,
    number,
    place_in,
)
from pipeprof.measure.session.processes.chosen import chosen_here
from pipeprof.measure.session.scratch import new_scratch
from pipeprof.record.decode import encode
from pipeprof.record.directories import (
    RUNS,
    already_recorded,
    attempt_of,
    new_directory,
    next_free,
    part_of,
)
from pipeprof.record.files import create_whole
from pipeprof.record.meta import JobMeta, RunMeta
from pipeprof.record.reader import boot_id
from pipeprof.record.remote.outgoing import stage
from pipeprof.record.remote.places import is_url
from pipeprof.record.schema import JOB_JSON, RUN_JSON
from pipeprof.record.writer import TraceWriter

_SCHEDULERS: Final = (
    "SLURM_HET_JOB_ID",
    "SLURM_JOB_ID",
    "PMIX_NAMESPACE",
    "PBS_JOBID",
    "LSB_JOBID",
    "RAY_JOB_ID",
)
"""Environment variables in which schedulers and launchers name a job, the same in all its ranks."""
_PATIENCE_S: Final = 5.0
"""For a marker that another rank is writing."""


class Rank(NamedTuple):
    """This process's place in a job of several."""

    rank: int
    world_size: int | None
    """None if the launcher does not say."""
    local_rank: int | None
    local_world_size: int | None
    """Ranks of the job on this node; None if the launcher does not say: then merging counts them."""
    node: int | None
    restart: int
    """Number of times that torchrun has started the job again."""


class Opened(NamedTuple):
    """A run that can be written."""

    writer: TraceWriter
    scratch: Path | None
    """Its directory, if it is a temporary one."""
    unwritten: TraceError | None
    """Reason why it is temporary although a directory was named: one rank alone does not end its job."""


def here() -> Rank | None:
    """Return the rank of this process, from torch's environment variables, from an initialised
    torch.distributed, or from the variables of another launcher.

    None outside a job, and in a job of one.
    """
    place = place_in(os.environ, (TORCH,)) or _initialised() or place_in(os.environ, LAUNCHERS[1:])
    if place is None or not place.is_of_several:
        return None
    return Rank(*place, number(os.environ, "TORCHELASTIC_RESTART_COUNT") or 0)


def with_rank(meta: RunMeta) -> RunMeta:
    """Return `meta` with this process's machine, and its place in its job if it is one of several."""
    meta = replace(meta, host=socket.gethostname(), boot_id=boot_id())
    rank = here()
    if rank is None:
        return meta
    return replace(
        meta,
        rank=rank.rank,
        world_size=rank.world_size,
        local_rank=rank.local_rank,
        local_world_size=rank.local_world_size,
        node=rank.node,
        restart=rank.restart,
        own_cores=_has_own_cores(),
        chosen=chosen_here(),
        job=_job(rank),
    )


def _has_own_cores() -> bool | None:
    """Return True if this rank is bound to a part of its launcher's cores; None if not observed."""
    with suppress(OSError, psutil.Error, AttributeError):
        return set(psutil.Process().cpu_affinity()) < set(psutil.Process(os.getppid()).cpu_affinity())
    return None


def _initialised() -> RankPlace | None:
    """Return the place that torch.distributed knows, if the program has initialised it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return completed(os.environ, TORCH, distributed.get_rank(), distributed.get_world_size())


# -- directories -------------------------------------------------------------------------------------------


def directory_for(name: str) -> Path:
    """Name a new run directory below `runs/`; all ranks of a job name the same."""
    rank = here()
    if rank is None:
        return new_directory(name)
    run_id = os.getenv("TORCHELASTIC_RUN_ID", "none")
    if _torchrun() and rank.local_world_size == rank.world_size:
        begun = datetime.fromtimestamp(_launched())
        job = f"{begun:%Y%m%d-%H%M%S}-{os.getppid()}"
    else:
        job = run_id if run_id not in ("", "none") else (_scheduled() or _master())
    return RUNS / re.sub(r"[^\w.-]", "_", f"{name}-{job}")


def job_directory(out: Path) -> Path:
    """Return where all ranks write: in `out`, or in `restart-<n>` below it if torchrun has restarted."""
    rank = here()
    return out if rank is None else attempt_of(out, rank.restart)


def own_directory(out: Path, beside_run: bool = False) -> Path:
    """Return where this process writes a run that goes to `out`: there, or in its own part of it.

    With `beside_run` the run of the program that started the job may lie there too. Raises `TraceError` if
    `out` is another job's or else holds a plain run.
    """
    rank = here()
    if rank is None:
        return out
    directory = job_directory(out)
    if not beside_run and (directory / RUN_JSON).exists():
        raise already_recorded(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _claim(directory, JOB_JSON, encode(_job(rank)))
        if _torchrun():
            _claim(directory, f"node-{rank.node}.json", _node())
    except FileExistsError as error:
        raise TraceError(f"{directory} is not a directory", "choose another --out") from error
    except OSError as error:
        raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error
    return part_of(directory, rank.rank)


def local_out(out: Path | str | None) -> Path | None:
    """Return the directory in which a run is written that goes to `out`: itself, or what stands for a URL.

    Raises `TraceError` if there can be none.
    """
    return stage(str(out)) if is_url(out) else None if out is None else Path(out)


def free_directory(out: Path | str | None) -> Path | None:
    """Return `out`; if it holds a run already, as when a cell is run again, `out-2`, …, and say so.

    Ranks of a job do not choose: all of them must write to one directory.
    """
    out = local_out(out)
    if out is None or here() is not None:
        return out
    free = next_free(out)
    if free != out:
        say(f"pipeprof: {out} holds a run already; this one is written to {free}")
    return free


def _job(rank: Rank) -> JobMeta:
    """Return values that all ranks of a job share and no other job has."""
    run_id = os.getenv("TORCHELASTIC_RUN_ID")
    return JobMeta(run_id, _master(), rank.world_size, _scheduled())


def _scheduled() -> str | None:
    """Return the job's name at its scheduler; for an indexed job of Kubernetes, taken from the names of its
    pods."""
    named = next((f"{name} {os.environ[name]}" for name in _SCHEDULERS if os.environ.get(name)), None)
    index, host = number(os.environ, KUBERNETES.rank), socket.gethostname()
    if named is None and index is not None and host.endswith(f"-{index}"):
        return f"Kubernetes {host.removesuffix(f'-{index}')}"
    return named


def _node() -> dict[str, Any]:
    """Return values that only the ranks of one torchrun share: its process and start time."""
    return {"host": socket.gethostname(), "launcher": os.getppid(), "started": round(_launched(), 2)}


def _torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _launched() -> float:
    return float(psutil.Process(os.getppid()).create_time())


def _master() -> str:
    return f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"


def _claim(directory: Path, name: str, mine: Mapping[str, Any]) -> None:
    """Create the marker `name`, or find one with the same content. A marker is complete once it exists,
    except for file systems without links.
    """
    final = directory / name
    if not final.exists():
        with suppress(FileExistsError):
            create_whole(final, json.dumps(mine))
    theirs = _marker(final)
    if theirs != dict(mine):
        owner = ", ".join(f"{key} {theirs.get(key)}" for key in mine)
        raise TraceError(
            f"{directory} is the run directory of another job ({owner})", "give each job an --out of its own"
        )


def _marker(path: Path) -> dict[str, Any]:
    """Read a marker. If there are no links, it may have been begun and not yet be whole."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with suppress(ValueError):
            marker: dict[str, Any] = json.loads(path.read_text())
            return marker
        if time.monotonic() > deadline:
            raise TraceError(f"{path} is damaged", "delete it, or choose another --out")
        time.sleep(0.02)


def open_writer(out: Path | str | None, meta: RunMeta, placed: bool = False) -> Opened:
    """Begin a run in `out`, in this rank's part of it, or without `out` in a temporary directory.

    With `placed`, `out` is this process's own part already.

    A rank that cannot write continues unrecorded and says so: if it ended, its job would end with it. Raises
    `TraceError` if the directory is another's, and outside a job if it cannot be written.
    """
    if out is None:
        scratch = new_scratch()
        return Opened(TraceWriter(scratch, meta), scratch, None)
    try:
        return Opened(TraceWriter(Path(out) if placed else own_directory(Path(out)), meta), None, None)
    except TraceError as error:
        forbidden = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileExistsError)
        rank = here()
        if rank is None or not forbidden:
            raise
        say(f"pipeprof: rank {rank.rank} goes on and is not recorded: {error}")
        scratch = new_scratch()
        return Opened(TraceWriter(scratch, meta), scratch, error)
