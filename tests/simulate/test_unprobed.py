"""A run some of whose batches and steps were unprobed predicts what it does with all of them probed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeprof.record.reader import load
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import Predictor
from tests.factory import MS, US, Plan, make_run
from tests.unprobed_runs import unprobe, unprobe_steps, with_column

BATCHES, EVERY = 256, 32
GAP, GAP_CPU = 2 * MS, 200 * US
"""Time between two batches of a worker, and the work in it."""
TAKEN, TAKEN_CPU = 3 * MS, 400 * US
"""Time of taking a batch, and the work in it."""
TWO_CORES: dict[str, Any] = {
    "kind": "trace",
    "overhead": {},
    "machine": {"cpu_count": 2, "usable_cores": 2},
    "storage": {"tier": "ram", "name": "ram", "emulated": False, "model": None},
}


def made(directory: Path, workers: int) -> Path:
    """A run whose way from a worker to the loop is mostly waiting, on two cores."""
    plan = Plan(
        batches=BATCHES,
        workers=workers,
        stages={"decode": 9 * MS + GAP, "collate": MS},
        compute=2 * MS,
        transfer=TAKEN,
        copy=0,
        main=0,
        spans_every=0,
        accelerator="none",
        synchronises=True,
        batch_columns={"handover_cpu_ns": GAP_CPU, "cpu_ns": 10 * MS},
        step_columns={"next_cpu_ns": [TAKEN_CPU] * BATCHES} if workers else {},
    )
    run = make_run(directory, plan, **TWO_CORES)
    rows = pq.read_table(run / "batches.parquet")
    later = [ns + GAP for ns in rows["start_ns"].to_pylist()]
    pq.write_table(with_column(rows, "batches", "start_ns", later), run / "batches.parquet")
    rows = pq.read_table(run / "stages.parquet")
    for name in ("wall_ns", "cpu_ns"):
        left = [min(ns, 9 * MS) for ns in rows[name].to_pylist()]
        rows = with_column(rows, "stages", name, left)
    pq.write_table(rows, run / "stages.parquet")
    return run


def thinned(run: Path, to: Path, block: int) -> Path:
    """The same run with `block` of each `EVERY` batches and steps unprobed."""
    unprobe(run, to, EVERY, block)
    rows = pq.read_table(to / "batches.parquet")
    pq.write_table(without_first(rows), to / "batches.parquet")
    in_workers = max(rows["worker"].to_pylist()) >= 0  # else a step's batch is made in it
    unprobe_steps(to, EVERY, block, first=10 if in_workers else EVERY - block)
    return to


def without_first(rows: pa.Table) -> pa.Table:
    """Forget what handed over each batch that came after an unprobed one of its worker."""
    known, before = [], dict[int, bool]()
    columns = (rows[name].to_pylist() for name in ("worker", "unprobed", "handover_cpu_ns"))
    for worker, gone, ns in zip(*columns, strict=True):
        known.append(None if before.get(worker) else ns)
        before[worker] = bool(gone)
    return with_column(rows, "batches", "handover_cpu_ns", known)


def both(directory: Path, workers: int, block: int) -> tuple[Demands, Demands]:
    whole = made(directory / "whole", workers)
    thin = thinned(whole, directory / "thin", block)
    return open_run(load(whole)), open_run(load(thin))


@pytest.mark.parametrize("block", [2, 28])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_unprobed_steps_wait_as_much_as_probed_ones(tmp_path: Path, workers: int, block: int) -> None:
    """Their CPU time between two batches and in `next` was not observed: it is that of the others."""
    whole, thin = both(tmp_path, workers, block)
    assert whole.throughput is not None
    for asked in (0, 1, 2, 4):
        expected, predicted = (
            Predictor(each).predict(replace(each.measured, workers=asked)).rate for each in (whole, thin)
        )
        assert predicted == pytest.approx(expected, rel=0.01), f"with {asked} workers"
    for each in (whole, thin):
        assert Predictor(each).replay().rate == pytest.approx(whole.throughput, rel=0.005)


def test_where_no_cpu_time_was_observed_all_of_it_is_work(tmp_path: Path) -> None:
    """Records of older runs have none."""
    run = made(tmp_path / "run", 1)
    for table, name in (("batches", "handover_cpu_ns"), ("steps", "next_cpu_ns")):
        rows = pq.read_table(run / f"{table}.parquet")
        pq.write_table(with_column(rows, table, name, [None] * len(rows)), run / f"{table}.parquet")
    batches = open_run(load(run)).batches
    assert not batches.receive_away.any()
    assert not batches.handover_away.any()
    assert batches.receive.mean() == pytest.approx(TAKEN, rel=0.02)
