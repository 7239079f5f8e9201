"""Makes run directories without torch: the pipeline's equations walked forwards with planted times.

Every worker has its own core and nothing contends, so the critical path is known by construction. Vary one
plan per test: `make_run(tmp_path / "run", Plan(workers=4, stages={"read": 8 * MS, "decode": MS}))`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeprof.devices import STORAGE, StorageModel
from pipeprof.record.decode import decode
from pipeprof.record.meta import RunMeta
from pipeprof.record.schema import MAIN_PROCESS, RUN_JSON, Status
from pipeprof.record.writer import TraceWriter
from tests.shared_disk import SharedDisk

SAMPLE_BYTES = 110_000
US, MS, S = 1_000, 1_000_000, 1_000_000_000
ORIGIN_NS = 1_000 * S
"""Where the made clocks begin, so that a confusion of times and durations shows."""

Times = int | Sequence[int]
"""The same for every batch, or one for each (repeated when it is shorter than the run)."""


class Sampled(NamedTuple):
    """One stack of the table `lines`."""

    stage: str
    stack: tuple[tuple[str, int, str], ...]
    """File, line and function, outermost first."""
    wall_ns: int
    cpu_ns: int | None = None
    """None for as much as `wall_ns`."""
    worker: int = MAIN_PROCESS
    loader: int = 0
    samples: int = 1

    @property
    def text(self) -> str:
        """The stack as the record has it."""
        return "\n".join(f"{file}\t{line}\t{function}" for file, line, function in self.stack)


class Counted(NamedTuple):
    """One row of the table `counters`."""

    counter: str
    value: int
    worker: int = 0
    epoch: int = 0
    loader: int = 0


@dataclass(frozen=True)
class Plan:
    """One loader and one loop, with the time of each activity in ns per batch."""

    batches: int = 120
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
    shutdown_ns: int = 0
    """From asking for a batch when none is left until the workers have been shut down."""
    persistent: bool = False
    """Workers start once: `startup_ns` is what a later epoch's `iter(loader)` takes."""
    accelerator: str = "emulated"
    """`none` makes a wrapper's run: no device columns."""
    device_wait: Times | None = None
    """The device's own measure of each wait, of a wrapper's run on CUDA."""
    pause_ns: int = 100 * US
    """From the end of an epoch to the next `iter(loader)`."""
    spans_every: int = 10
    disk: StorageModel | None = None
    """The one device that all workers read from: the times of `read` are its, and not those of `stages`."""
    jitter: float = 0.0
    """Relative standard deviation of the stage times."""
    seed: int = 0
    status: Status = "complete"
    lines: Sequence[Sampled] = ()
    counters: Sequence[Counted] = ()
    happened: Sequence[tuple[str, str]] = ()
    """Further events of the run, at its end: kind and detail."""
    batch_columns: Mapping[str, Times] = field(default_factory=dict)
    """Further columns of `batches`, or other values."""
    step_columns: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Further columns of `steps`, for each step of an epoch."""


@dataclass(frozen=True)
class Made:
    """What happened, as arrays in order of takes, one entry a batch of one epoch."""

    worker: list[int]
    dispatch: list[int]
    start: list[int]
    finish: list[int]
    sent: list[int]
    """When the main process, or its pin thread, could turn to it."""
    available: list[int]
    request: list[int]
    take: list[int]
    launch: list[int]
    copy_start: list[int]
    copy_end: list[int]
    compute_start: list[int]
    compute_end: list[int]
    stage_ns: dict[str, list[int]]
    queue_ns: list[int] = field(default_factory=list)
    """Of the reads of each batch: the time behind other workers' reads."""


def walk(plan: Plan, origin_ns: int = ORIGIN_NS, epoch: int = 0, device_free_ns: int = 0) -> Made:
    """The equations of the graph for one epoch, in order of batches."""
    n, width = plan.batches, plan.workers * plan.prefetch
    rng = np.random.default_rng((plan.seed, epoch))
    stage_ns = {name: _spread(times, n, plan.jitter, rng) for name, times in plan.stages.items()}
    work = [sum(times[k] for times in stage_ns.values()) for k in range(n)]
    transfer, pin, copy, compute, main = (
        _spread(times, n, 0.0, rng) for times in (plan.transfer, plan.pin, plan.copy, plan.compute, plan.main)
    )
    made = Made([0] * n, *([0] * n for _ in range(12)), stage_ns)
    shared = None
    if plan.disk is not None and plan.workers:
        stage_ns["read"], made.queue_ns[:] = [0] * n, [0] * n
        work = [sum(times[k] for times in stage_ns.values()) for k in range(n)]
        shared = SharedDisk(plan.disk, plan.workers, plan.batch_size, SAMPLE_BYTES, work)
    ready = origin_ns + (plan.startup_ns if plan.workers else 0)
    asked = ready if plan.persistent and epoch else origin_ns  # the sampler draws before it hands out
    free = [ready] * max(1, plan.workers)
    to_pin: list[tuple[int, int]] = []
    pin_free, sent_to = 0, 0
    for k in range(n):
        last_compute = made.compute_end[k - 1] if k else device_free_ns
        last_copy = made.copy_end[k - 1] if k else device_free_ns
        resumed = (last_compute if plan.synchronises else made.launch[k - 1]) if k else ready
        made.request[k] = resumed + (main[k] if k else 0)
        if plan.workers == 0:
            made.worker[k] = -1
            made.dispatch[k] = made.start[k] = made.request[k]
            made.finish[k] = made.sent[k] = made.start[k] + work[k]
            made.available[k] = made.take[k] = made.finish[k]
        else:
            while sent_to < min(n, k + width):  # all that are out while the loop waits for batch k
                j, worker = sent_to, sent_to % plan.workers
                made.worker[j] = worker
                made.dispatch[j] = made.take[j - width] if j >= width else asked
                sent_to += 1
                if shared is not None:
                    shared.give(j, worker, max(made.dispatch[j], free[worker]))
                    continue
                made.start[j] = max(made.dispatch[j], free[worker])
                made.finish[j] = free[worker] = made.start[j] + work[j]
                made.sent[j] = made.finish[j] + transfer[j]
                heappush(to_pin, (made.sent[j], j))
            for batch in shared.finished(k) if shared is not None else ():
                j = batch.number
                made.start[j], made.finish[j] = batch.start, batch.finish
                stage_ns["read"][j], made.queue_ns[j] = batch.read, batch.queued
                made.sent[j] = made.finish[j] + transfer[j]
                heappush(to_pin, (made.sent[j], j))
            while not made.available[k]:  # the pin thread takes them as they come
                sent, j = heappop(to_pin)
                made.available[j] = max(sent, pin_free if plan.pin_memory else 0) + pin[j]
                pin_free = made.available[j]
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


def make_run(directory: Path, plan: Plan | None = None, after: Plan | None = None, **meta: Any) -> Path:
    """Write the run that `plan` describes; `meta` overrides keys of run.json.

    With a plan for what comes `after` each of its epochs, an epoch of a second loader follows each.
    """
    plan = plan or Plan()
    plans = [plan] if after is None else [plan, after]
    writer = begin(directory, {**_meta(plan), "loaders": _loaders(plans), **meta})
    origin, device_free, step = ORIGIN_NS, 0, 0
    for epoch in range(plan.epochs):
        for loader, one in enumerate(plans):
            made = walk(one, origin, epoch, device_free)
            _append_epoch(writer, one, made, epoch, step, origin, loader)
            device_free, step = made.compute_end[-1], step + one.batches
            origin = _left_ns(one, made) + one.shutdown_ns + plan.pause_ns
    writer.append("events", _events([(device_free, "run_end", -1)]))
    for kind, detail in plan.happened:
        writer.append("events", {"time_ns": [device_free], "kind": [kind], "detail": [detail]})
    _append_samples(writer, plan, device_free)
    writer.close(plan.status)
    overwrite(directory, meta)
    return directory


def _left_ns(plan: Plan, made: Made) -> int:
    """When the loop asked for one more batch, and there was none."""
    main = int(np.resize(np.asarray(plan.main), plan.batches)[-1])
    return max(made.launch[-1], made.take[-1]) + main


def begin(directory: Path, raw: Mapping[str, Any]) -> TraceWriter:
    """A writer whose run.json has the keys of `raw`, as far as they fit its model."""
    return TraceWriter(directory, decode(RunMeta, raw))


def overwrite(directory: Path, raw: Mapping[str, Any]) -> None:
    """Put the keys of `raw` into run.json as they are, whatever they are."""
    path = directory / RUN_JSON
    path.write_text(json.dumps({**json.loads(path.read_text()), **raw}))


def _events(rows: list[tuple[int, str, int]], loader: int = 0) -> dict[str, list[Any]]:
    times, kinds, epochs = zip(*rows, strict=True)
    return {
        "time_ns": list(times),
        "kind": list(kinds),
        "loader": [loader] * len(rows),
        "epoch": list(epochs),
    }


def _append_epoch(
    writer: TraceWriter, plan: Plan, made: Made, epoch: int, first: int, origin: int, loader: int
) -> None:
    n = plan.batches
    key = {"loader": [loader] * n, "epoch": [epoch] * n, "seq": list(range(n))}
    begun = [(origin, "epoch_start", epoch)]
    if plan.workers and not (plan.persistent and epoch):
        begun.append((made.request[0], "workers_ready", epoch))
    writer.append("events", _events(begun, loader))
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
            **{name: np.resize(value, n).tolist() for name, value in plan.batch_columns.items()},
        },
    )
    device = {
        "copy_start_ns": made.copy_start,
        "copy_end_ns": made.copy_end,
        "compute_start_ns": made.compute_start,
        "compute_end_ns": made.compute_end,
    }
    if plan.accelerator == "none":
        device = {}
    if plan.device_wait is not None:
        device["device_wait_ns"] = np.resize(np.asarray(plan.device_wait), n).tolist()
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
            **device,
            **plan.step_columns,
        },
    )
    _append_stages(writer, plan, made, key)
    _append_spans(writer, plan, made, epoch, loader)
    left = _left_ns(plan, made)
    ends = [(left, "last_request", epoch), (left + plan.shutdown_ns, "epoch_end", epoch)]
    writer.append("events", _events(ends, loader))


def _append_samples(writer: TraceWriter, plan: Plan, now_ns: int) -> None:
    if plan.lines:
        rows = [
            (
                now_ns,
                None if each.worker == MAIN_PROCESS else each.loader,
                each.worker,
                each.stage,
                each.text,
                each.samples,
                each.wall_ns,
                each.wall_ns if each.cpu_ns is None else each.cpu_ns,
            )
            for each in plan.lines
        ]
        names = ("time_ns", "loader", "worker", "stage", "stack", "samples", "wall_ns", "cpu_ns")
        writer.append("lines", dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    if plan.counters:
        counted = [
            (now_ns, each.loader, each.epoch, each.worker, each.counter, each.value) for each in plan.counters
        ]
        names = ("time_ns", "loader", "epoch", "worker", "counter", "value")
        writer.append("counters", dict(zip(names, map(list, zip(*counted, strict=True)), strict=True)))


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
                "bytes": [SAMPLE_BYTES * plan.batch_size if name == "read" else None] * n,
                "queue_ns": made.queue_ns if name == "read" and made.queue_ns else [None] * n,
                "count": [1 if name == "collate" else plan.batch_size] * n,
            },
        )


def _append_spans(writer: TraceWriter, plan: Plan, made: Made, epoch: int, loader: int) -> None:
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
        writer.append("spans", {"loader": [loader] * len(rows), "epoch": [epoch] * len(rows), **columns})


def _loaders(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    return [loader_meta(plan, id=number, name=("train", "val")[number]) for number, plan in enumerate(plans)]


def loader_meta(plan: Plan, **changes: Any) -> dict[str, Any]:
    """What run.json says of the plan's loader; `changes` overrides keys."""
    return {
        "id": 0,
        "name": "train",
        "workers": plan.workers,
        "prefetch": plan.prefetch,
        "in_order": plan.in_order,
        "pin_memory": plan.pin_memory,
        "persistent_workers": plan.persistent,
        "batch_size": plan.batch_size,
        "start_method": "fork",
        "dataset": "Made",
        "iterable": False,
        "samples": plan.batches * plan.batch_size,
        **changes,
    }


def _meta(plan: Plan) -> dict[str, Any]:
    storage = plan.disk or STORAGE["hdd-7200" if plan.tier == "hdd" else "sata-ssd"]
    emulated = ["storage", "accelerator"] if plan.accelerator == "emulated" else ["storage"]
    model = {k: getattr(storage, k) for k in storage.__dataclass_fields__}
    return {
        "kind": "bench",
        "name": "made",
        "created_at": "2026-01-01T00:00:00+00:00",
        "command": ["pipeprof", "run", "made.yaml"],
        "clock": {"monotonic_ns": ORIGIN_NS, "unix_ns": 1_767_225_600 * S},
        "scenario": None,
        "loaders": _loaders([plan]),
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
