"""Makes run directories without torch: the pipeline's equations walked forwards with planted times.

Every worker has its own core and nothing contends, so the critical path is known by construction. Vary one
plan per test: `make_run(tmp_path / "run", Plan(workers=4, stages={"read": 8 * MS, "decode": MS}))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeprof.devices import STORAGE
from pipeprof.trace import TraceWriter

US, MS, S = 1_000, 1_000_000, 1_000_000_000
ORIGIN_NS = 1_000 * S
"""Where the made clocks begin, so that a confusion of times and durations shows."""

Times = int | Sequence[int]
"""The same for every batch, or one for each (repeated when it is shorter than the run)."""


@dataclass(frozen=True)
class Plan:
    """One loader and one loop, with the time of each activity in ns per batch."""

    batches: int = 60
    epochs: int = 1
    batch_size: int = 32
    warmup: int = 5
    workers: int = 2
    prefetch: int = 2
    in_order: bool = True
    pin_memory: bool = False
    synchronises: bool = False
    queue_depth: int = 2
    tier: str = "ssd"
    stages: Mapping[str, Times] = field(
        default_factory=lambda: {"read": 5 * MS, "decode": 10 * MS, "collate": MS}
    )
    transfer: Times = 200 * US
    pin: Times = 0
    copy: Times = 100 * US
    compute: Times = 20 * MS
    main: Times = 100 * US
    startup_ns: int = 50 * MS
    accelerator: str = "emulated"
    """`none` makes a wrapper's run: no device columns."""
    spans_every: int = 10
    jitter: float = 0.0
    """Relative standard deviation of the stage times."""
    seed: int = 0
    status: str = "complete"


@dataclass(frozen=True)
class Made:
    """What happened, as arrays in order of takes, one entry a batch of one epoch."""

    worker: list[int]
    dispatch: list[int]
    start: list[int]
    finish: list[int]
    available: list[int]
    request: list[int]
    take: list[int]
    launch: list[int]
    copy_start: list[int]
    copy_end: list[int]
    compute_start: list[int]
    compute_end: list[int]
    stage_ns: dict[str, list[int]]


def walk(plan: Plan, origin_ns: int = ORIGIN_NS, epoch: int = 0, device_free_ns: int = 0) -> Made:
    """The equations of DESIGN §4 for one epoch, in order of batches."""
    n, width = plan.batches, plan.workers * plan.prefetch
    rng = np.random.default_rng((plan.seed, epoch))
    stage_ns = {name: _spread(times, n, plan.jitter, rng) for name, times in plan.stages.items()}
    work = [sum(times[k] for times in stage_ns.values()) for k in range(n)]
    transfer, pin, copy, compute, main = (
        _spread(times, n, 0.0, rng) for times in (plan.transfer, plan.pin, plan.copy, plan.compute, plan.main)
    )
    made = Made([0] * n, *([0] * n for _ in range(11)), stage_ns)
    ready = origin_ns + (plan.startup_ns if plan.workers else 0)
    free = [ready] * max(1, plan.workers)
    for k in range(n):
        last_compute = made.compute_end[k - 1] if k else device_free_ns
        last_copy = made.copy_end[k - 1] if k else device_free_ns
        resumed = (last_compute if plan.synchronises else made.launch[k - 1]) if k else ready
        made.request[k] = resumed + (main[k] if k else 0)
        if plan.workers == 0:
            made.worker[k] = -1
            made.dispatch[k] = made.start[k] = made.request[k]
            made.finish[k] = made.available[k] = made.take[k] = made.start[k] + work[k]
        else:
            worker = k % plan.workers
            made.worker[k] = worker
            made.dispatch[k] = made.take[k - width] if k >= width else origin_ns
            made.start[k] = max(made.dispatch[k], free[worker])
            made.finish[k] = free[worker] = made.start[k] + work[k]
            pinned_from = made.available[k - 1] if plan.pin_memory and k else 0
            made.available[k] = max(made.finish[k] + transfer[k], pinned_from) + pin[k]
            made.take[k] = max(made.request[k], made.available[k])
        made.copy_start[k] = max(made.take[k], last_copy)
        made.copy_end[k] = made.copy_start[k] + copy[k]
        made.compute_start[k] = max(made.copy_end[k], last_compute)
        made.compute_end[k] = made.compute_start[k] + compute[k]
        host_free = made.take[k] if plan.pin_memory else made.copy_end[k]
        full = made.compute_end[k - plan.queue_depth] if k >= plan.queue_depth else 0
        made.launch[k] = made.compute_end[k] if plan.synchronises else max(host_free, full)
    return made


def _spread(times: Times, n: int, jitter: float, rng: np.random.Generator) -> list[int]:
    base = np.resize(np.asarray(times, dtype=np.float64), n)
    return [max(0, round(t)) for t in base * (1 + jitter * rng.standard_normal(n))]


def make_run(directory: Path, plan: Plan | None = None, **meta: Any) -> Path:
    """Write the run that `plan` describes; `meta` overrides keys of run.json."""
    plan = plan or Plan()
    writer = TraceWriter(directory, {**_meta(plan), **meta})
    origin, device_free, step = ORIGIN_NS, 0, 0
    for epoch in range(plan.epochs):
        made = walk(plan, origin, epoch, device_free)
        _append_epoch(writer, plan, made, epoch, step, origin)
        device_free, step = made.compute_end[-1], step + plan.batches
        origin = max(made.launch[-1], made.take[-1]) + 100 * US
    writer.append("events", _events([(device_free, "run_end", -1)]))
    writer.close(plan.status)
    return directory


def _events(rows: list[tuple[int, str, int]]) -> dict[str, list[Any]]:
    times, kinds, epochs = zip(*rows, strict=True)
    return {"time_ns": list(times), "kind": list(kinds), "loader": [0] * len(rows), "epoch": list(epochs)}


def _append_epoch(writer: TraceWriter, plan: Plan, made: Made, epoch: int, first: int, origin: int) -> None:
    n = plan.batches
    key = {"loader": [0] * n, "epoch": [epoch] * n, "seq": list(range(n))}
    ready = made.request[0]
    writer.append("events", _events([(origin, "epoch_start", epoch), (ready, "workers_ready", epoch)]))
    cpu = [sum(t[k] for name, t in made.stage_ns.items() if not _reads(name)) for k in range(n)]
    payload = plan.batch_size * 3 * 224 * 224 * 4
    writer.append(
        "batches",
        {
            **key,
            "worker": made.worker,
            "samples": [plan.batch_size] * n,
            "dispatch_ns": made.dispatch,
            "start_ns": made.start,
            "finish_ns": made.finish,
            "cpu_ns": cpu,
            "runq_ns": [0] * n,
            "bytes": [payload] * n,
        },
    )
    device = {
        "copy_start_ns": made.copy_start,
        "copy_end_ns": made.copy_end,
        "compute_start_ns": made.compute_start,
        "compute_end_ns": made.compute_end,
    }
    writer.append(
        "steps",
        {
            **key,
            "step": list(range(first, first + n)),
            "warmup": [first + k < plan.warmup for k in range(n)],
            "samples": [plan.batch_size] * n,
            "request_ns": made.request,
            "take_ns": made.take,
            "launch_ns": made.launch,
            **({} if plan.accelerator == "none" else device),
        },
    )
    _append_stages(writer, plan, made, key)
    _append_spans(writer, plan, made, epoch)
    writer.append("events", _events([(made.launch[-1], "epoch_end", epoch)]))


def _reads(name: str) -> bool:
    """`read`, or a part of it such as `read:throttled`: nothing of it needs a core."""
    return name.partition(":")[0] == "read"


def _append_stages(writer: TraceWriter, plan: Plan, made: Made, key: dict[str, list[int]]) -> None:
    n = plan.batches
    for name, times in made.stage_ns.items():
        reads = _reads(name)
        writer.append(
            "stages",
            {
                **key,
                "scope": [0] * n,
                "stage": [name] * n,
                "wall_ns": times,
                "cpu_ns": [0] * n if reads else times,
                "runq_ns": [0] * n,
                "bytes": [110_000 * plan.batch_size if name == "read" else None] * n,
                "count": [1 if name == "collate" else plan.batch_size] * n,
            },
        )


def _append_spans(writer: TraceWriter, plan: Plan, made: Made, epoch: int) -> None:
    rows: list[tuple[int, int, str, int | None, int, int]] = []
    for k in range(0, plan.batches, plan.spans_every) if plan.spans_every else ():
        at = made.start[k]
        for sample in range(plan.batch_size):
            for name, times in made.stage_ns.items():
                if name != "collate":
                    wall = times[k] // plan.batch_size
                    rows.append((k, made.worker[k], name, k * plan.batch_size + sample, at, wall))
                    at += wall
        if "collate" in made.stage_ns:
            wall = made.stage_ns["collate"][k]
            rows.append((k, made.worker[k], "collate", None, made.finish[k] - wall, wall))
    if rows:
        names = ("seq", "worker", "stage", "sample", "start_ns", "wall_ns")
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        writer.append("spans", {"loader": [0] * len(rows), "epoch": [epoch] * len(rows), **columns})


def _meta(plan: Plan) -> dict[str, Any]:
    storage = STORAGE["hdd-7200" if plan.tier == "hdd" else "sata-ssd"]
    emulated = ["storage", "accelerator"] if plan.accelerator == "emulated" else ["storage"]
    model = {k: getattr(storage, k) for k in storage.__dataclass_fields__}
    return {
        "kind": "bench",
        "name": "made",
        "created_at": "2026-01-01T00:00:00+00:00",
        "command": ["pipeprof", "run", "made.yaml"],
        "clock": {"monotonic_ns": ORIGIN_NS, "unix_ns": 1_767_225_600 * S},
        "scenario": None,
        "loaders": [
            {
                "id": 0,
                "name": "train",
                "workers": plan.workers,
                "prefetch": plan.prefetch,
                "in_order": plan.in_order,
                "pin_memory": plan.pin_memory,
                "persistent_workers": False,
                "batch_size": plan.batch_size,
                "start_method": "fork",
                "dataset": "Made",
                "iterable": False,
                "samples": plan.batches * plan.batch_size,
            }
        ],
        "accelerator": {
            "kind": plan.accelerator,
            "name": "made",
            "emulated": plan.accelerator == "emulated",
            "queue_depth": plan.queue_depth,
            "synchronises": plan.synchronises,
            "step_ns": int(np.mean(np.asarray(plan.compute))),
        },
        "storage": {
            "tier": plan.tier,
            "name": storage.name,
            "emulated": True,
            "cache": "cold",
            "model": model,
        },
        "data": {"format": "jpeg_folder", "samples": 2048, "mean_bytes": 110_000, "mean_decode_ns": None},
        "machine": {
            "cpu_count": 8,
            "usable_cores": 8,
            "cpu_quota_cores": None,
            "memory_bytes": 16 << 30,
            "cpu_name": "made",
            "gpu_names": [],
            "kernel": "made",
            "python": "3.11",
            "platform": "linux",
        },
        "packages": {"pipeprof": "0.1.0", "torch": "2.6.0"},
        "seeds": {"run": 0, "data": 0},
        "emulated": emulated,
        "not_observed": [],
        "warnings": [],
        "overhead": {"span_ns": 400, "batch_ns": 12_000},
        "warmup_steps": plan.warmup,
    }
