"""Makes the parts of a job without torch: ranks that meet after each step, with planted lateness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeprof.record.directories import part_of
from tests.factory import MS, ORIGIN_NS, Plan, _meta, begin

Times = int | Sequence[int]
SAMPLES = 4
"""Of each batch."""


@dataclass(frozen=True)
class Job:
    """Each rank reads, computes and meets the others. Times in ns, one for all steps or one for each."""

    ranks: int = 4
    steps: int = 60
    warmup: int = 5
    read: Mapping[int, Times] = field(default_factory=dict)
    """By rank; `usual_read` for those not named."""
    usual_read: Times = 2 * MS
    compute: Mapping[int, Times] = field(default_factory=dict)
    usual_compute: Times = 20 * MS
    exchange: int = MS
    """From the last rank's coming to the others' going on."""
    hosts: Mapping[int, str] = field(default_factory=dict)
    offset_ns: Mapping[str, int] = field(default_factory=dict)
    """By host: what its clock shows beyond the first one's."""
    drift: Mapping[str, float] = field(default_factory=dict)
    jitter_ns: int = 0
    """Standard deviation of when a rank notices that the others have come."""
    ended: Mapping[int, int] = field(default_factory=dict)
    """Ranks that were killed, after this many steps."""
    recorded: bool = True
    """The meetings are in the record; else the run is a wrapper's, with neither them nor a device."""
    shards: Mapping[int, Sequence[str | None]] = field(default_factory=dict)
    """By rank: of its batches the shards, repeated where they are fewer."""
    seed: int = 0
    told: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """By rank: of its `run.json` what is not the usual."""


def make_job(directory: Path, job: Job) -> Path:
    """Write the parts of `job` into `directory`."""
    rows = times(job)
    for rank in range(job.ranks):
        write_rank(part_of(directory, rank), job, rank, *(column[rank] for column in rows))
    return directory


def times(job: Job) -> tuple[Any, ...]:
    """request, take, came, left: (ranks, steps) on the reference's clock."""
    rng = np.random.default_rng(job.seed)
    shape = (job.ranks, job.steps)
    read, compute = np.empty(shape, np.int64), np.empty(shape, np.int64)
    for rank in range(job.ranks):
        read[rank] = np.resize(job.read.get(rank, job.usual_read), job.steps)
        compute[rank] = np.resize(job.compute.get(rank, job.usual_compute), job.steps)
    noticed = np.abs(rng.normal(0, job.jitter_ns, shape)).astype(np.int64) if job.jitter_ns else 0
    request = np.empty(shape, np.int64)
    left = np.empty(shape, np.int64)
    now = np.full(job.ranks, ORIGIN_NS)
    for k in range(job.steps):
        request[:, k] = now
        came = now + read[:, k] + compute[:, k]
        left[:, k] = came.max() + job.exchange
        if job.jitter_ns:
            left[:, k] += noticed[:, k]
        now = left[:, k]
    take = request + read
    return request, take, take + compute, left


def write_rank(directory: Path, job: Job, rank: int, request: Any, take: Any, came: Any, left: Any) -> None:
    """One part, on its host's own clock."""
    host = job.hosts.get(rank, "first")
    drift, offset = job.drift.get(host, 0.0), job.offset_ns.get(host, 0)
    request, take, came, left = (
        at + offset + np.rint((at - ORIGIN_NS) * drift).astype(np.int64) for at in (request, take, came, left)
    )
    n = job.ended.get(rank, job.steps)
    request, take, came, left = request[:n], take[:n], came[:n], left[:n]
    device = {"compute_start_ns": take, "compute_end_ns": came, "copy_start_ns": take, "copy_end_ns": take}
    writer = begin(
        directory,
        {**_meta(Plan(workers=0, synchronises=True, batch_size=SAMPLES)), **_place(job, rank, host)},
    )
    key = {"loader": [0] * n, "epoch": [0] * n, "seq": np.arange(n)}
    writer.append(
        "steps",
        {
            **key,
            "step": np.arange(n),
            "warmup": np.arange(n) < job.warmup,
            "samples": [SAMPLES] * n,
            "request_ns": request,
            "take_ns": take,
            "launch_ns": came if job.recorded else take,
            **(device if job.recorded else {}),
        },
    )
    writer.append(
        "batches",
        {
            **key,
            "worker": [-1] * n,
            "samples": [SAMPLES] * n,
            "dispatch_ns": request,
            "start_ns": request,
            "finish_ns": take,
            "cpu_ns": [0] * n,
            "runq_ns": [0] * n,
            **({"shard": list(islice(cycle(job.shards[rank]), n))} if rank in job.shards else {}),
        },
    )
    stage = {"scope": [0] * n, "stage": ["read"] * n, "wall_ns": take - request, "cpu_ns": [0] * n}
    writer.append(
        "stages", {**key, **stage, "runq_ns": [0] * n, "bytes": [40_000] * n, "count": [SAMPLES] * n}
    )
    if job.recorded:
        writer.append("collectives", {"step": np.arange(n), "start_ns": came, "end_ns": left})
    if rank in job.ended:
        writer.flush()
        writer.write_meta(replace(writer.meta, pid=2**22 + 1))  # no such process: the writer was killed
    else:
        writer.close("complete")


def _place(job: Job, rank: int, host: str) -> dict[str, Any]:
    return {
        "rank": rank,
        "world_size": job.ranks,
        "local_rank": rank,
        "local_world_size": job.ranks,
        "node": 0,
        "host": host,
        "boot_id": f"boot-of-{host}",
        **({} if job.recorded else {"accelerator": {"kind": "none", "emulated": False}, "kind": "wrapper"}),
        **job.told.get(rank, {}),
    }
