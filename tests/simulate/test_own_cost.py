"""Predictions are of the run without pipeprof: a planted cost is taken off them, and not off a replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.resources.own_cost import CALLS, CALLS_IN_WORKER, CALLS_WITH_WORKERS
from pipeprof.record.reader import load
from pipeprof.record.schema import MAIN_PROCESS, TABLES
from pipeprof.report.text.forecast import replayed_line
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.observing import IN_LOOP, IN_WORKER, OF_WORK
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import Predictor
from pipeprof.simulate.sampling import changed
from pipeprof.simulate.uncertainty import work_error
from tests.factory import MS, US, Plan, Sampled, make_run
from tests.simulate.common import demands_of, recorded

COST, STILL = 900 * US, 200 * US
"""Planted costs of a batch, and of one that is made unprobed: larger than any true one."""
BATCHES = 200
BLOCKS = 10
NONE_TOLD: dict[str, Any] = {"kind": "trace", "overhead": {}}
IN_MEMORY = {"tier": "ram", "name": "ram", "emulated": False, "model": None}
MACHINE = {"cpu_count": 8, "usable_cores": 8}


def plan_of(workers: int, making_ns: int = 9 * MS, step_ns: int = 2 * MS) -> Plan:
    return Plan(
        batches=BATCHES,
        workers=workers,
        stages={"decode": making_ns, "collate": MS},
        compute=step_ns,
        transfer=0,
        copy=0,
        main=0,
        spans_every=0,
        accelerator="none",
        synchronises=True,
    )


def unprobed() -> list[bool]:
    return [8 <= k % (BATCHES // BLOCKS) < 12 for k in range(BATCHES)]


def borne(times_ns: int, spread_ns: int = 0, gone: list[bool] | None = None) -> list[int]:
    """What each batch takes longer, with blocks that differ by `spread_ns` between each other."""
    rng = np.random.default_rng(1)
    more = np.repeat(rng.integers(-spread_ns, spread_ns + 1, BLOCKS), BATCHES // BLOCKS).tolist()
    marked = zip(unprobed() if gone is None else gone, more, strict=True)
    return [times_ns + (STILL if each else COST + extra) for each, extra in marked]


def mostly_unprobed() -> list[bool]:
    return [not gone for gone in unprobed()]


def mark(run: Path, table: str, taken_ns: list[int], still_ns: int, gone: list[bool] | None = None) -> None:
    """Put readings of the CPU clock around blocks of unprobed, or probed, batches that took so long.

    Of what unprobed ones took longer the clocks see as much as they see by the model of the calls.
    """
    gone = unprobed() if gone is None else gone
    in_worker = any(
        worker != MAIN_PROCESS for worker in pq.read_table(run / "batches.parquet")["worker"].to_pylist()
    )
    with_workers = CALLS_IN_WORKER if table == "batches" else CALLS_WITH_WORKERS
    still_ns = round(still_ns / (1 + (with_workers if in_worker else CALLS)[0]))
    path, schema = run / f"{table}.parquet", TABLES[table]
    rows, clock = pq.read_table(path), np.append(1, np.cumsum(taken_ns) + 1).tolist()
    read = [k % (BATCHES // BLOCKS) in (4, 8, 12, 16) for k in range(BATCHES)]
    for name, values in (
        ("unprobed", [each or None for each in gone]),
        ("own_ns", [still_ns if each else None for each in gone]),
        ("thread_cpu_ns", [ns if there else None for ns, there in zip(clock[:-1], read, strict=True)]),
    ):
        kept = rows.drop_columns([name]) if name in rows.column_names else rows
        rows = kept.append_column(schema.field(name), pa.array(values, schema.field(name).type))
    pq.write_table(rows, path)


def traced(
    directory: Path, plan: Plan, part: str, spread_ns: int = 0, gone: list[bool] | None = None
) -> Demands:
    """The run of `plan` with the cost in its making or in its step, which it has measured itself."""
    dear, plain = borne(9 * MS, spread_ns, gone), [9 * MS] * BATCHES
    if part == "batches":
        plan = replace(plan, stages={**plan.stages, "decode": dear})
    else:
        plan = replace(plan, compute=borne(int(np.asarray(plan.compute)), spread_ns, gone))
    run = make_run(directory, plan, machine=MACHINE, storage=IN_MEMORY, **NONE_TOLD)
    # of a loop without workers the steps' table has all of the cost
    in_steps = part == "steps" or not plan.workers
    mark(run, "batches", plain if in_steps else dear, 0 if in_steps else STILL, gone)
    mark(run, "steps", dear if in_steps else plain, STILL if in_steps else 0, gone)
    return open_run(load(run))


@pytest.mark.parametrize(("workers", "part"), [(0, "batches"), (1, "batches"), (1, "steps")])
@pytest.mark.parametrize("gone", [unprobed(), mostly_unprobed()], ids=["some", "most"])
@pytest.mark.parametrize("asked", [0, 1, 2, 4])
def test_a_cost_that_the_run_measured_is_in_no_prediction(
    tmp_path: Path, workers: int, part: str, asked: int, gone: list[bool]
) -> None:
    plan = plan_of(workers, step_ns=14 * MS if part == "steps" else 2 * MS)
    true = demands_of(tmp_path / "true", plan, machine=MACHINE, **NONE_TOLD)
    observed = traced(tmp_path / "traced", plan, part, gone=gone)
    knobs = replace(true.measured, workers=asked)
    expected = Predictor(true).predict(knobs).rate
    assert Predictor(observed).predict(replace(observed.measured, workers=asked)).rate == pytest.approx(
        expected, rel=0.005
    )


LOOP_BOUND = plan_of(4, making_ns=MS, step_ns=MS)


@pytest.mark.parametrize("steps", [unprobed(), mostly_unprobed()], ids=["some steps", "most steps"])
@pytest.mark.parametrize("batches", [unprobed(), mostly_unprobed()], ids=["some batches", "most batches"])
@pytest.mark.parametrize("asked", [0, 1, 2, 4])
def test_a_steps_cost_is_by_its_own_mark_and_not_by_its_batchs(
    tmp_path: Path, steps: list[bool], batches: list[bool], asked: int
) -> None:
    true = demands_of(tmp_path / "true", LOOP_BOUND, machine=MACHINE, **NONE_TOLD)
    slower = replace(LOOP_BOUND, compute=borne(MS, gone=steps))
    run = make_run(tmp_path / "run", slower, machine=MACHINE, storage=IN_MEMORY, **NONE_TOLD)
    mark(run, "batches", [MS] * BATCHES, 0, batches)
    mark(run, "steps", borne(MS, gone=steps), STILL, steps)
    observed = open_run(load(run))
    predictor = Predictor(observed)
    expected = Predictor(true).predict(replace(true.measured, workers=asked)).rate
    predicted = predictor.predict(replace(observed.measured, workers=asked)).rate
    assert predicted == pytest.approx(expected, rel=0.01)
    assert predictor.replay().rate == pytest.approx(observed.throughput, rel=0.005)


@pytest.mark.parametrize("asked", [0, 1, 2, 4])
def test_the_loops_cost_is_in_its_body_and_not_in_next(tmp_path: Path, asked: int) -> None:
    """Receiving takes about as long as the cost, and there is none of it without workers."""
    plan = replace(plan_of(1), transfer=MS, step_columns={"next_cpu_ns": [MS] * BATCHES})
    true = demands_of(tmp_path / "true", plan, machine=MACHINE, **NONE_TOLD)
    observed = traced(tmp_path / "traced", plan, "steps")
    assert true.batches.receive.mean() == pytest.approx(MS, rel=0.01)
    expected = Predictor(true).predict(replace(true.measured, workers=asked)).rate
    predicted = Predictor(observed).predict(replace(observed.measured, workers=asked)).rate
    assert predicted == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("cores", [1.0, 2.0])
def test_the_cost_of_a_step_is_work_and_no_sleep(tmp_path: Path, cores: float) -> None:
    """Half of a step is work; on one core that and the making of the next batch follow one another."""
    slept, worked = 4 * MS, 4 * MS
    plan = plan_of(1, step_ns=slept + worked)
    mean = int(np.mean(borne(0)))
    rates = []
    for part, more in (("none", 0), ("steps", mean)):
        line = Sampled("main", (("train.py", 7, "step"),), slept + worked + more, worked + more)
        planned = replace(plan, lines=[line])
        demands = (
            traced(tmp_path / part, planned, part)
            if more
            else demands_of(tmp_path / part, planned, machine=MACHINE, **NONE_TOLD)
        )
        predictor = Predictor(demands)
        rates.append(predictor.predict(replace(demands.measured, cores=cores)).rate)
    assert rates[1] == pytest.approx(rates[0], rel=0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_replay_keeps_it_and_the_prediction_says_so(tmp_path: Path, workers: int) -> None:
    observed = traced(tmp_path / "traced", plan_of(workers), "batches")
    predictor = Predictor(observed)
    assert observed.throughput is not None
    assert predictor.replay().rate == pytest.approx(observed.throughput, rel=0.005)
    assert predictor.base().rate > 1.04 * observed.throughput
    (note,) = [str(each) for each in predictor.base().extrapolations if "without pipeprof" in str(each)]
    assert "measured in the run" in note
    assert not any("without pipeprof" in str(each) for each in predictor.replay().extrapolations)
    for demands, begin in (
        (predictor.demands, "Unchanged, without pipeprof"),
        (observed, "Replayed unchanged"),
    ):
        assert replayed_line(predictor.base(), demands).startswith(begin)


def test_the_interval_carries_that_of_the_cost(tmp_path: Path) -> None:
    sure, unsure = (
        Predictor(traced(tmp_path / str(spread), plan_of(1), "batches", spread)).demands
        for spread in (0, 800 * US)
    )
    wider = work_error(unsure, unsure.measured, 100) ** 2 - work_error(sure, sure.measured, 100) ** 2
    middle, low, high = CALLS_IN_WORKER
    of_calls_ns = STILL / (1 + middle) * max(high - middle, middle - low)
    assert sure.own_error_ns == pytest.approx(of_calls_ns, abs=10 * US)
    assert unsure.own_error_ns > of_calls_ns + 10 * US
    assert wider > 0


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_short_run_takes_the_cost_of_its_model(tmp_path: Path, workers: int) -> None:
    """The planted cost is the model's; it may be wrong by as much."""
    batch_ns, made = 20 * US, 10 * MS
    tiny = (IN_WORKER if workers else IN_LOOP) * batch_ns
    cost = round((tiny + OF_WORK * made) / (1 - OF_WORK))
    plan = plan_of(workers)
    true = demands_of(tmp_path / "true", plan, machine=MACHINE, **NONE_TOLD)
    slower = replace(plan, stages={**plan.stages, "decode": 9 * MS + cost}, compute=2 * MS)
    slower = replace(slower, compute=2 * MS + round(IN_LOOP * batch_ns) * (workers > 0))
    overhead = {"batch_ns": batch_ns, "span_ns": 0.0}
    observed = demands_of(tmp_path / "run", slower, machine=MACHINE, kind="trace", overhead=overhead)
    predictor = Predictor(observed)
    for asked in (0, 1, 4):
        expected = Predictor(true).predict(replace(true.measured, workers=asked)).rate
        predicted = predictor.predict(replace(observed.measured, workers=asked))
        assert predicted.rate == pytest.approx(expected, rel=0.005)
    assert predictor.demands.own_error_ns == pytest.approx(
        np.hypot(cost, IN_LOOP * batch_ns * (workers > 0)), rel=1e-4
    )
    assert any("by a model" in str(each) for each in predictor.demands.notes)


def test_a_bench_is_predicted_as_its_cells_are_measured(tmp_path: Path) -> None:
    observed = demands_of(tmp_path / "run", plan_of(1), machine=MACHINE, kind="bench")
    assert observed.own_cost is None
    assert Predictor(observed).demands is observed


def test_threads_that_write_take_cores_in_the_traced_run_alone(tmp_path: Path) -> None:
    """A worker and the thread that writes share one core: what it waited for was no other program."""
    machine = {"cpu_count": 1, "usable_cores": 1}
    plan = plan_of(1, step_ns=MS // 10)
    true = demands_of(tmp_path / "true", plan, machine=machine, **NONE_TOLD)
    flush_ns = 2 * MS
    waited = {"runq_ns": flush_ns, "cpu_ns": 10 * MS}
    slower = replace(plan, stages={"decode": 9 * MS + flush_ns, "collate": MS}, batch_columns=waited)
    run = recorded(
        tmp_path / "run", slower, machine=machine, kind="trace", overhead={"flush_ns": float(flush_ns)}
    )
    directory = tmp_path / "run" / "stages.parquet"
    stages = pq.read_table(directory)
    cpu = [9 * MS if name == "decode" else MS for name in stages["stage"].to_pylist()]
    at = stages.column_names.index("cpu_ns")
    pq.write_table(stages.set_column(at, stages.schema.field("cpu_ns"), pa.array(cpu, pa.int64())), directory)
    observed = open_run(run)
    assert observed.measured.neighbours < 0.1
    predictor = Predictor(observed)
    assert predictor.replay().rate == pytest.approx(observed.throughput, rel=0.03)
    assert predictor.base().rate == pytest.approx(Predictor(true).base().rate, rel=0.03)


def test_a_worker_waits_for_its_own_threads_and_a_loop_without_workers_does_not(tmp_path: Path) -> None:
    """What neither siblings nor neighbours explain of the waiting was for threads of the worker's process."""
    demands = demands_of(tmp_path / "run", plan_of(1), machine=MACHINE, **NONE_TOLD)
    n = len(demands.batches)
    waking, slept = np.full(n, 0.5 * MS), np.full(n, 0.1 * MS)
    for away, left in ((np.zeros(n), 0.0), (slept, 0.1 * MS), (20 * slept, 0.5 * MS)):
        batches = replace(demands.batches, waking=waking, away={"decode": away})
        woken = replace(demands, batches=batches)
        alone, more = (changed(woken, replace(demands.measured, workers=w))["waking"] for w in (0, 2))
        assert alone == pytest.approx(left)
        assert more == pytest.approx(0.5 * MS)


def test_the_loops_own_work_in_a_step_waits_for_a_core_like_any_other(tmp_path: Path) -> None:
    """Half of a step is CPU time, and the cores were shared with as many others: alone it is shorter."""
    slept, worked = 4 * MS, 4 * MS
    alone = plan_of(0, step_ns=slept + worked)
    true = demands_of(tmp_path / "true", alone, machine=MACHINE, **NONE_TOLD)
    crowded = plan_of(1, making_ns=18 * MS, step_ns=slept + 2 * worked)
    lines = [Sampled("main", (("train.py", 7, "step"),), slept + 2 * worked, worked)]
    columns = {"runq_ns": 10 * MS, "cpu_ns": 10 * MS}
    crowded = replace(crowded, stages={"decode": 20 * MS}, batch_columns=columns, lines=lines)
    observed = demands_of(tmp_path / "run", crowded, machine=MACHINE, **NONE_TOLD)
    assert observed.host.core_waiting == pytest.approx(0.5)
    batches = replace(observed.batches, cpu={"decode": np.full(BATCHES, 10.0 * MS)})
    predictor, expected = Predictor(replace(observed, batches=batches)), Predictor(true).base().rate
    rate = predictor.predict(replace(observed.measured, workers=0)).rate
    assert rate == pytest.approx(expected, rel=0.005)
    one_core = predictor.predict(replace(observed.measured, cores=1.0)).rate
    assert one_core == pytest.approx(32 * 1e9 / (10 * MS + worked), rel=0.02), "worker and loop share it"
