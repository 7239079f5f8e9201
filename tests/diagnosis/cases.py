"""The exam: one thing planted in each case, with its size where the size can be planted exactly."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipeprof.devices import LinkModel
from tests.diagnosis.harness import Case, Loop, looped, neighbours, no_quota_here, quota, scenario
from tests.diagnosis.planted import (
    Both,
    Burn,
    Lock,
    ManyTensors,
    Paged,
    Planted,
    PlantedStream,
    Sleep,
    SlowCollate,
    Stragglers,
    Transformed,
    burn,
    slow_start,
)

RELIEF = {"ram", "faster-storage", "shards", "more-workers"}
"""Each of them relieves a slow storage."""
BUSY = {"more-workers", "more-cores"}

SMALL: dict[str, Any] = {"format": "tensor_files", "samples": 1024, "sample_bytes": 65_536}
LARGE: dict[str, Any] = {"format": "tensor_files", "samples": 256, "sample_bytes": 1_000_000}
BRIEF: dict[str, Any] = {"steps": 45, "seconds": 12.0, "warmup_steps": 5}


def bench(step_ms: float, workers: int, data: dict[str, Any], **parts: Any) -> Any:
    """A scenario of the bench on an emulated accelerator, in batches of 8."""
    loader = {
        "batch_size": 8,
        "workers": workers,
        "persistent_workers": workers > 0,
        **parts.pop("loader", {}),
    }
    accelerator = {"kind": "emulated", "step_ms": step_ms, **parts.pop("accelerator", {})}
    return scenario(data=data, loader=loader, accelerator=accelerator, run=BRIEF, **parts)


MAPPED = "mapped-reads"
"""On a fast disk the kernel's work for page faults, counted as the code's, is as large as the wait."""


def case(name: str, cause: str | set[str], fix: str | set[str], run: Any, **more: Any) -> Case:
    """A case with words or sets of words."""
    causes = {cause} if isinstance(cause, str) else cause
    fixes = {fix} if isinstance(fix, str) else fix
    return Case(name, frozenset(causes), frozenset(fixes), run, **more)


def bound(step_ms: float, part_ms: float, making_ms: float) -> float:
    """Share of the window of a part of the making, where one maker of batches sets the pace.

    Of each `making_ms` the accelerator works `step_ms`; the rest is split in proportion.
    """
    return (1 - step_ms / making_ms) * part_ms / making_ms


def over(work: Any) -> Any:
    """Makes the planted data set of `work`."""
    return lambda directory: Planted(work)


def paged(directory: Path) -> Paged:
    """A file on the real disk beside the run."""
    path = directory.with_suffix(".bin")
    if not path.exists():
        path.write_bytes(bytes(64 << 20))
        import os

        with path.open("rb") as file:
            os.fsync(file.fileno())
    return Paged(path, 1 << 18)


STORAGE = [
    case(
        "storage: bandwidth",
        "storage-bandwidth",
        RELIEF - {"more-workers", "shards"},
        bench(5, 4, LARGE, storage={"tier": "ssd", "figures": {"bandwidth_bytes_per_s": 60e6}}),
    ),
    case(
        "storage: seeks of a disk",
        "storage-latency",
        RELIEF,
        bench(5, 2, SMALL, storage={"tier": "hdd"}),
    ),
    case(
        "storage: latency, one at a time",
        "storage-latency",
        RELIEF,
        bench(5, 1, SMALL, storage={"tier": "ssd", "figures": {"latency_ns": 8e6}}),
    ),
    case(
        "storage: over a network",
        "storage-network",
        RELIEF,
        bench(5, 2, SMALL, storage={"tier": "network", "figures": {"latency_ns": 10e6}}),
    ),
    case(
        "storage: page cache thrashes",
        "page-cache",
        RELIEF,
        bench(
            5,
            2,
            {"format": "tensor_files", "samples": 160, "sample_bytes": 65_536},
            storage={"tier": "hdd", "cache_bytes": 2_000_000},
        ),
    ),
    case(
        "storage: mmap of a real disk",
        {"storage-latency", "storage-bandwidth", "storage-network"},
        {"no-read-ahead"},  # a page that is touched at random brings its neighbours with it
        looped(paged, Loop(step_ms=1, steps=40), batch_size=4, num_workers=1),
        or_unsure=MAPPED,
    ),
]

CPU = [
    case(
        "decode, a core idle",
        "decode",
        "more-workers",
        bench(
            2,
            1,
            {"format": "jpeg_folder", "samples": 256, "crop": 32},
            storage={"tier": "ram"},
        ),
    ),
    case(
        "a named transform",
        "transform:Unsharp",
        "more-workers",
        looped(lambda directory: Transformed(6), Loop(step_ms=10), batch_size=8, num_workers=1),
        size=("transform:Unsharp", bound(10, 8 * 6, 8 * 6.2)),
    ),
    case(
        "a stage of the user's own",
        "stage:tokenise",
        "more-workers",
        looped(over(Both(Burn(5, "tokenise"), Burn(1))), Loop(step_ms=10), batch_size=8, num_workers=1),
        size=("stage:tokenise", bound(10, 8 * 5, 8 * 6)),
    ),
    case(
        "code that nobody named",
        "stage:getitem",
        "more-workers",
        looped(over(Burn(6)), Loop(step_ms=10), batch_size=8, num_workers=0),
        size=("stage:getitem", bound(10, 8 * 6, 8 * 6)),
    ),
    case(
        "collate",
        "collate",
        "more-workers",
        looped(
            over(Burn(0.5)),
            Loop(step_ms=10),
            batch_size=8,
            num_workers=1,
            collate_fn=SlowCollate(40),
        ),
        size=("collate", bound(10, 40, 40 + 8 * 0.5)),
    ),
    case(
        "a stream, where no sampler decides",
        "stage:parse",
        "more-workers",
        looped(
            lambda directory: PlantedStream(Burn(5, "parse")),
            Loop(step_ms=10),
            batch_size=8,
            num_workers=1,
        ),
    ),
    case(
        "too many workers for the cores",
        "cpu-contention",
        {"fewer-workers", "cheaper-decode", "cheaper-transform", "more-cores"},
        looped(over(Burn(4, "augment")), Loop(step_ms=2), batch_size=8, num_workers=10),
        detail="oversubscribed",
    ),
    case(
        "a quota below the cores",
        "cpu-contention",
        "more-cores",
        looped(
            over(Burn(4, "augment")),
            Loop(step_ms=2, steps=40),
            partial(quota, 0.3),
            batch_size=4,
            num_workers=2,
        ),
        detail="quota",
        needs=no_quota_here,
    ),
    case(
        "a neighbour on the cores",
        "cpu-contention",
        {"free-cores", "more-cores"},
        looped(
            over(Burn(4, "augment")),
            Loop(step_ms=2, steps=40),
            partial(neighbours, 8),
            batch_size=4,
            num_workers=1,
        ),
        detail="neighbour",
    ),
]

WAITS = [
    case(
        "stragglers",
        "straggler",
        {"deeper-prefetch", "out-of-order", "more-workers"},
        looped(over(Stragglers(1, 400, 160)), Loop(step_ms=8, steps=120), batch_size=8, num_workers=4),
    ),
    case(
        "a lock",
        "blocked",
        "unblock",
        looped(over(Lock(5)), Loop(step_ms=5), batch_size=4, num_workers=3),
    ),
    case(
        "a rate limit",
        "blocked",
        {"none", "more-workers", "unblock"},
        looped(over(Sleep(10)), Loop(step_ms=20), batch_size=8, num_workers=1),
        size=("blocked", bound(20, 8 * 10, 8 * 10)),
    ),
    case(
        "workers start at each epoch",
        "startup",
        "persistent-workers",
        looped(
            lambda directory: Planted(Sleep(0.5), size=96),
            Loop(step_ms=10, steps=72, epochs=6),
            batch_size=8,
            num_workers=2,
            worker_init_fn=slow_start,
        ),
    ),
    case(
        "between processes",
        "transfer",
        {"lighter-transfer", "more-workers"},
        looped(
            over(Burn(0.1)),
            Loop(step_ms=2, steps=40),
            batch_size=8,
            num_workers=2,
            collate_fn=ManyTensors(400),
        ),
    ),
]

LOOP = [
    case(
        "pageable copies",
        "h2d",
        {"pin", "device-prefetch"},
        looped(
            lambda directory: Planted(Burn(0.1), shape=(64, 1024)),
            Loop(step_ms=10, link=LinkModel("slow", 70e6, 140e6)),
            batch_size=8,
            num_workers=1,
        ),
        size=("h2d", 0.73),
    ),
    case(
        "the loop's own Python",
        "main",
        "loop",
        looped(over(Burn(0.1)), Loop(step_ms=10, main=partial(burn, 20)), batch_size=8, num_workers=1),
        size=("main", 0.5),
    ),
    case(
        "the loop reads each loss",
        "main",
        "loop",
        looped(
            over(Burn(0.1)), Loop(step_ms=20, sync=True, main=partial(burn, 10)), batch_size=8, num_workers=1
        ),
        size=("main", 0.32),
    ),
    case(
        "the accelerator",
        "accelerator",
        "none",
        looped(over(Burn(0.5)), Loop(step_ms=40, steps=50), batch_size=8, num_workers=1),
        size=("accelerator", 1.0),
    ),
    case(
        "the accelerator, jumpy workers",
        "accelerator",
        "none",
        looped(over(Stragglers(1, 30, 16)), Loop(step_ms=40, steps=60), batch_size=8, num_workers=2),
    ),
    case(
        "ten steps",
        "inconclusive",
        "none",
        looped(over(Burn(2)), Loop(step_ms=5, steps=10, warmup=0), batch_size=8, num_workers=1),
    ),
]

CASES = [*STORAGE, *CPU, *WAITS, *LOOP]
