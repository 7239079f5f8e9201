"""The exam of mechanisms: each planted once, and beside it a run that must not be called so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import torch

from pipeprof.measure.session.session import Session
from tests.diagnosis.cases import BUSY, case, over
from tests.diagnosis.expensive import (
    CHEAP,
    Archived,
    Bulky,
    Cached,
    Collects,
    Compressed,
    Copied,
    Indexed,
    Multiplies,
    Pictured,
    Sized,
    SlowDraws,
    Stored,
    listed,
    multiplied,
    packed,
    serving,
    sixteen_threads,
)
from tests.diagnosis.harness import Case, Loop, looped, train
from tests.diagnosis.planted import Burn, Planted, PlantedStream, Sleep, burn, count

Run = Callable[[Path], None]
SHORT = Loop(step_ms=2, steps=28, warmup=4)
"""As few steps as a verdict needs."""
ONE_WORKER = {"batch_size": 4, "num_workers": 1}
WORK = BUSY | {"cheaper-work", "cheaper-transform", "cheaper-collate", "cheaper-decode"}


def made(make: Callable[[Path], Any], loop: Loop = SHORT, **arguments: Any) -> Run:
    """A run of one worker, if nothing else is said, over what `make(directory)` gives."""
    return looped(make, loop, **{**ONE_WORKER, **arguments})


def served(greeting_ms: float, answer_ms: float, keeps: bool) -> Run:
    """A run over the samples of a server."""

    def measured(out: Path) -> None:
        stored = Stored(greeting_ms, answer_ms, keeps)
        with serving(stored):
            train(out, stored, SHORT, **ONE_WORKER)

    return measured


def bodied(around: Callable[[Any], Any], step: Callable[[], None]) -> Run:
    """A loop without a device, sampled: what stands between loader and step, and the step."""

    def measured(out: Path) -> None:
        with Session(out, "wrapper", out.name, warmup_steps=4, lines=True) as session:
            loader = session.loader(Planted(CHEAP, 40 * 8), batch_size=8, num_workers=1)
            for _ in around(loader):
                step()

    return measured


def accompanied(beside: Callable[[], None]) -> Run:
    """A loop that computes in Python between waits, and a thread that runs `beside` again and again."""

    def measured(out: Path) -> None:
        done = threading.Event()

        def again() -> None:
            while not done.is_set():
                beside()

        thread = threading.Thread(target=again, name="metrics")
        thread.start()
        try:
            with Session(out, "wrapper", out.name, warmup_steps=4, lines=True) as session:
                loader = session.loader(Planted(CHEAP, 60 * 8), batch_size=8, num_workers=1)
                for _ in loader:
                    for _ in range(8):
                        count(1.5)
                        time.sleep(0.001)
        finally:
            done.set()
            thread.join()

    return measured


def prefetched(out: Path, trains_in_thread: bool) -> None:
    """A thread takes the batches, for a loop in the main thread or for its own."""
    weight = torch.zeros(2, requires_grad=True)
    optimiser, queue = torch.optim.SGD([weight], lr=0.1), Queue[Any](4)

    def step() -> None:
        time.sleep(0.005)
        optimiser.step()

    with Session(out, "wrapper", out.name, warmup_steps=4) as session:
        loader = session.loader(Planted(Sleep(2), 60 * 4), **ONE_WORKER)

        def take() -> None:
            for batch in loader:
                if trains_in_thread:
                    step()
                else:
                    queue.put(batch)
            queue.put(None)

        thread = threading.Thread(target=take, name="prefetcher")
        thread.start()
        while queue.get() is not None:
            step()
        thread.join()


def first_core(worker: int) -> None:
    """Bind a worker to one core, as some libraries do when they are imported."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def no_two_cores() -> str:
    """Why two workers cannot crowd one core of several; empty where they can."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return "" if cores >= 2 else "needs two cores"


def plant(
    name: str,
    cause: str | set[str],
    mechanism: str | None,
    fix: str | set[str],
    run: Run,
    **more: Any,
) -> Case:
    """A case with the mechanism that it must be told by."""
    return case(name, cause, fix, run, mechanism=mechanism, **more)


CODE = "stage:getitem"
CASES = [
    plant(
        "batches of Python's numbers",
        "collate",
        "gil",
        "cheaper-collate",
        made(lambda directory: Sized(), collate_fn=listed),
        quick=True,
    ),
    plant(
        "a big batch that is slow to hand over",
        {"transfer", "collate"},
        None,
        WORK | {"lighter-transfer"},
        made(over(CHEAP), collate_fn=Bulky(64 << 20)),
    ),
    plant(
        "collections of a large index",
        "collate",
        "gc",
        "gc-freeze",
        made(lambda directory: Indexed(600_000), collate_fn=Collects(2)),
    ),
    plant(
        "collections that cost nothing",
        "collate",
        None,
        WORK,
        made(lambda directory: Indexed(20_000), collate_fn=Collects(0, cpu_ms=20)),
    ),
    plant(
        "pools of threads that fight",
        "cpu-contention",
        "threads",
        "one-thread",
        # spawned: a fork of a process whose own pool has computed hangs as it computes, and so did this test
        made(
            lambda directory: Multiplies(),
            num_workers=2,
            worker_init_fn=sixteen_threads,
            multiprocessing_context="spawn",
        ),
    ),
    plant(
        "pools of threads that sleep",
        CODE,
        None,
        WORK,
        made(over(Burn(4)), worker_init_fn=sixteen_threads),
    ),
    plant(
        "two workers bound to one core",
        "cpu-contention",
        "affinity",
        "affinity",
        made(over(Burn(5)), Loop(step_ms=2, steps=60, warmup=4), num_workers=2, worker_init_fn=first_core),
        needs=no_two_cores,
    ),
    plant(
        "an archive opened for each sample",
        CODE,
        "reopened",
        "keep-open",
        made(lambda directory: Archived(directory.with_suffix(".zip"), 1500)),
        quick=True,
    ),
    plant(
        "many opens that are cheap",
        CODE,
        None,
        WORK,
        made(lambda directory: Archived(directory.with_suffix(".zip"), 4, cpu_ms=6)),
    ),
    plant(
        "slices of a compressed volume",
        CODE,
        "over-read",
        {"smaller-chunks"},
        made(lambda directory: Compressed(directory.with_suffix(".gz"), skips=True)),
        quick=True,
    ),
    plant(
        "a compressed volume that is used",
        {CODE, "transfer"},
        None,
        WORK | {"lighter-transfer"},
        made(lambda directory: Compressed(directory.with_suffix(".gz"), skips=False), batch_size=1),
    ),
    plant(
        "large pictures shrunk to stamps",
        "decode",
        "over-decode",
        "cheaper-decode",
        made(lambda directory: Pictured((1200, 900), (64, 48))),
        quick=True,
    ),
    plant(
        "pictures that are used as they are",
        {"decode", CODE, "transfer", "collate"},
        None,
        WORK | {"lighter-transfer"},
        made(lambda directory: Pictured((1200, 900), (1000, 750))),
    ),
    plant(
        "rows of a table in memory",
        {CODE, "collate"},
        "per-sample",
        "batch-fetch",
        made(lambda directory: Sized(1 << 20), batch_size=2048, num_workers=0),
        quick=True,
    ),
    plant(
        "a few heavy samples",
        CODE,
        None,
        WORK,
        made(over(Burn(3)), num_workers=0),
    ),
    plant(
        "a sampler that draws long",
        "main",
        "sampler",
        "cheaper-sampler",
        made(over(CHEAP), Loop(step_ms=2, steps=40, warmup=4), sampler=SlowDraws(4)),
        quick=True,
    ),
    plant(
        "a sampler that draws quickly, before a slow loop",
        "main",
        None,
        "loop",
        made(
            over(CHEAP), Loop(step_ms=2, steps=40, warmup=4, main=partial(burn, 15)), sampler=SlowDraws(0.1)
        ),
    ),
    plant(
        "an iterator for each step",
        "startup",
        "iterator-per-step",
        "one-iterator",
        made(over(CHEAP), Loop(step_ms=4, steps=26, warmup=2, epochs=26, taken=1)),
        waits=True,
    ),
    plant(
        "epochs that are cut short",
        {"startup", "accelerator", "blocked", CODE, "inconclusive"},
        None,
        {"persistent-workers", "none", "fork", "more-workers"},
        made(over(Sleep(1)), Loop(step_ms=4, steps=48, warmup=8, epochs=6, taken=8)),
        never="iterator-per-step",
    ),
    plant(
        "a small data set, iterated again and again",
        "startup",
        "start-up",
        "persistent-workers",
        made(
            lambda directory: Planted(CHEAP, size=8),
            Loop(step_ms=4, steps=40, warmup=2, epochs=20),
        ),
    ),
    plant(
        "a small data set, whose workers stay",
        {"startup", "accelerator", "transfer", CODE},
        None,
        {"none", "more-workers", "deeper-prefetch", "fewer-workers", "no-workers", "lighter-transfer"},
        made(
            lambda directory: Planted(CHEAP, size=32),
            Loop(step_ms=4, steps=64, warmup=8, epochs=8),
            persistent_workers=True,
        ),
        never="start-up",
    ),
    plant(
        "a cache that ends with its workers",
        {"blocked", CODE},
        "lost-cache",
        "persistent-workers",
        made(lambda directory: Cached(48, 20), Loop(step_ms=2, steps=36, warmup=0, epochs=3)),
        waits=True,
    ),
    plant(
        "a cache that stays",
        {"blocked", CODE, "accelerator", "startup", "inconclusive"},
        None,
        {"none", "more-workers", "more-cores", "cheaper-work"},
        made(
            lambda directory: Cached(48, 20),
            Loop(step_ms=2, steps=36, warmup=0, epochs=3),
            persistent_workers=True,
        ),
        never="lost-cache",
        waits=True,
    ),
    plant(
        "a stream that each worker gives whole",
        {"blocked", "stage:iter"},
        "duplicates",
        "split-stream",
        made(lambda directory: Copied(4), num_workers=2),
        waits=True,
    ),
    plant(
        "a stream that is split",
        {"blocked", "stage:iter"},
        None,
        {"more-workers", "none"},
        made(lambda directory: PlantedStream(Sleep(4)), num_workers=2),
    ),
    plant(
        "a connection for each sample",
        "storage-network",
        "connections",
        "keep-open",
        served(greeting_ms=10, answer_ms=0.5, keeps=False),
        waits=True,
    ),
    plant(
        "one connection to a slow server",
        "storage-network",
        None,
        {"more-workers", "shards", "ram", "faster-storage"},
        served(greeting_ms=10, answer_ms=8, keeps=True),
        waits=True,
    ),
    plant(
        "packing between loader and step",
        "main",
        "host-body",
        "loop",
        bodied(partial(packed, cpu_ms=20), lambda: time.sleep(0.004)),
        waits=True,
    ),
    plant(
        "a step that torch computes",
        "accelerator",
        None,
        "none",
        bodied(iter, partial(multiplied, 60)),
    ),
    plant(
        "a thread that computes in Python beside the loop",
        # the loop waits for the GIL in its body, and as it receives a batch: here more, there less
        {"main", "transfer"},
        "main-gil",
        "own-process",
        accompanied(partial(count, 20)),
        needs=no_two_cores,
    ),
    plant(
        "a thread that hashes beside the loop",
        {"main", "accelerator", "transfer", "cpu-contention"},  # it takes one of the cores
        None,
        {"loop", "none", "more-workers", "deeper-prefetch"},
        accompanied(partial(burn, 20)),
        never="main-gil",
        needs=no_two_cores,
    ),
    plant(
        "batches that another thread takes",
        "inconclusive",
        "thread-consumer",
        "none",
        partial(prefetched, trains_in_thread=False),
        waits=True,
    ),
    plant(
        "a training loop in a thread of its own",
        "blocked",
        None,
        {"more-workers", "none"},
        partial(prefetched, trains_in_thread=True),
        waits=True,
    ),
]
