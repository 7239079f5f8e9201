"""The cost of observing as a run has measured it, and that unprobed batches change no verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.ledger.making import making_of, read_stages
from pipeprof.analyse.resources.own_cost import (
    CALLS,
    CALLS_IN_WORKER,
    CALLS_WITH_WORKERS,
    NEEDED_BATCHES,
    CostPerBatch,
    ModelledCost,
    OwnCost,
    Thinned,
    cost_of,
    differences,
    read_own_cost,
)
from pipeprof.analyse.why.observed import Observed
from pipeprof.record.reader import load as read_run
from pipeprof.record.schema import TABLES
from pipeprof.report.wording.view import own_cost_text, thinned_text
from pipeprof.simulate.demands.loader import read_demands
from pipeprof.simulate.demands.read import read_recorded
from pipeprof.timeline import NOT_OBSERVED, read_timeline
from pipeprof.units import duration
from tests.factory import MS, US, Plan, make_run
from tests.unprobed_runs import unprobe, unprobe_loop


def test_a_cost_is_the_median_with_the_interval_of_its_order() -> None:
    cost = cost_of(np.array([5.0, 9.0, 1.0, 2.0, 3.0, 100.0, 4.0, 6.0, 7.0, 8.0]))
    assert cost == CostPerBatch("measured", 10, 5.5, 2.0, 9.0)


def test_a_cost_below_its_noise_is_bounded_and_not_told() -> None:
    cost = cost_of(np.array([-5.0, 9.0, -1.0, 2.0, 3.0, -4.0, 4.0, 6.0]))
    assert (cost.state, cost.cost_ns, cost.high_ns) == ("below-noise", None, 9.0)


def test_what_unprobed_batches_bear_too_is_part_of_the_cost() -> None:
    differences_ns = np.array([5.0, 9.0, 1.0, 2.0, 3.0, 100.0, 4.0, 6.0, 7.0, 8.0])
    assert cost_of(differences_ns, 3.0) == CostPerBatch("measured", 10, 8.5, 5.0, 12.0, 3.0)
    below = cost_of(differences_ns - 5.0, 3.0)  # what is seen of the differences alone decides
    assert (below.state, below.cost_ns, below.high_ns) == ("below-noise", None, 7.0)


@pytest.mark.parametrize("workers", [0, 1])
def test_each_thread_has_what_its_own_unprobed_batches_bear(workers: int, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Plan(batches=160, workers=workers))
    _mark(run, "steps", cost_ns=40, own_ns=2_000)
    _mark(run, "batches", cost_ns=70, own_ns=3_000)
    own = read_own_cost(read_run(run))
    assert own is not None
    assert (own.main.cost_ns, own.main.unprobed_ns) == ((2_032, 2_000) if workers else (5_032, 5_000))
    assert own.calls == _times(CALLS_WITH_WORKERS if workers else CALLS, own.main.unprobed_ns)
    assert own.calls is not None
    assert own.calls.low_ns < own.calls.cost_ns < own.calls.high_ns
    cost, low, high = (duration(ns) for ns in (own.calls.cost_ns, own.calls.low_ns, own.calls.high_ns))
    assert f"out of the proxies, by a model: {cost} a batch ({low} to {high})" in own_cost_text(own)
    if own.workers is not None:
        assert (own.workers.cost_ns, own.workers.unprobed_ns) == (3_056, 3_000)
        assert own.workers.probed_share == 0.8
        assert own.worker_calls == _times(CALLS_IN_WORKER, own.workers.unprobed_ns)
        assert own.worker_calls is not None
        assert f"a worker's, by the same: {duration(own.worker_calls.cost_ns)} a batch" in own_cost_text(own)


def test_without_the_clocks_of_unprobed_batches_no_calls_are_modelled(tmp_path: Path) -> None:
    """As in runs of before they were kept."""
    run = make_run(tmp_path / "run", Plan(batches=160, workers=1))
    _mark(run, "steps", cost_ns=40, own_ns=None)
    _mark(run, "batches", cost_ns=70, own_ns=None)
    own = read_own_cost(read_run(run))
    assert own is not None
    assert (own.main.cost_ns, own.calls, own.worker_calls) == (32, None, None)
    assert "by a model" not in own_cost_text(own)


def _times(model: tuple[float, float, float], clocked_ns: float | None) -> ModelledCost:
    assert clocked_ns is not None
    return ModelledCost(*(each * clocked_ns for each in model))


def test_detailed_batches_are_spread_over_all(tmp_path: Path) -> None:
    """Their excess is of the batches whose spans are kept: every 16th of these takes 1.6 ms longer."""
    plan = Plan(batches=160, workers=1, stages={"decode": 10 * MS}, spans_every=16)
    run = make_run(tmp_path / "run", plan)
    _mark(run, "steps", cost_ns=40, own_ns=2_000)
    _mark(run, "batches", cost_ns=70, own_ns=3_000)
    path = run / "batches.parquet"
    rows, kept = pq.read_table(path), {*pq.read_table(run / "spans.parquet")["seq"].to_pylist()}
    cpu = [2_000_000 if seq in kept else 400_000 for seq in rows["seq"].to_pylist()]
    at = rows.column_names.index("cpu_ns")
    pq.write_table(rows.set_column(at, "cpu_ns", pa.array(cpu, pa.int64())), path)
    own = read_own_cost(read_run(run))
    assert own is not None
    assert own.workers is not None
    assert own.workers.detailed_ns == pytest.approx(1_600_000 * len(kept) / 160)
    assert own.workers.cost_ns == pytest.approx(3_056 + own.workers.detailed_ns)
    assert own.main.detailed_ns is None


def _mark(run: Path, table: str, cost_ns: int, own_ns: int | None) -> None:
    """Put unprobed blocks into a table of 160 rows."""
    path = run / f"{table}.parquet"
    rows = pq.read_table(path)
    marked, clock_ns, *_ = blocks([cost_ns] * 8)
    for name, values in (
        ("unprobed", [True if each else None for each in marked]),
        ("own_ns", [own_ns if each else None for each in marked]),
        ("thread_cpu_ns", [None if ns == NOT_OBSERVED else int(ns) for ns in clock_ns]),
    ):
        field = TABLES[table].field(name)
        if name in rows.column_names:
            rows = rows.drop_columns([name])
        rows = rows.append_column(field, pa.array(values, field.type))
    pq.write_table(rows, path)


def test_few_blocks_say_nothing() -> None:
    assert cost_of(np.ones(5)) == CostPerBatch("too-short", 5)


def blocks(costs_ns: list[int], plain_ns: int = 1000, worker: int = 0) -> tuple[Any, ...]:
    """Rows of one thread: for each cost 20 batches, of which a block is unprobed."""
    clock, cpu, marked = 7, [], []
    for cost in costs_ns:
        for n in range(20):
            is_unprobed = 8 <= n < 12
            cpu.append(clock if n in (4, 8, 12, 16) else NOT_OBSERVED)
            marked.append(is_unprobed)
            clock += plain_ns + (0 if is_unprobed else cost)
    rows = len(cpu)
    return np.array(marked), np.array(cpu), np.arange(rows), (np.full(rows, worker),)


def test_each_block_is_compared_with_its_neighbours() -> None:
    assert differences(*blocks([50, 70, 90])).tolist() == [50, 70, 90]


@pytest.mark.parametrize("block", [1, 4])
def test_where_most_are_unprobed_each_probed_block_is_compared(block: int) -> None:
    clock, cpu, marked = 7, [], []
    for cost in (50, 70, 90):
        for n in range(8 * block):
            is_probed = 5 * block <= n < 6 * block
            cpu.append(clock if n in [m * block for m in (4, 5, 6, 7)] else NOT_OBSERVED)
            marked.append(not is_probed)
            clock += 1000 + cost * is_probed
    rows = len(cpu)
    told = differences(np.array(marked), np.array(cpu), np.arange(rows), (np.zeros(rows, int),))
    assert told.tolist() == [50, 70, 90]


def test_a_cost_is_borne_by_the_batches_that_were_probed() -> None:
    differences_ns = np.array([5.0, 9.0, 1.0, 2.0, 3.0, 100.0, 4.0, 6.0, 7.0, 8.0])
    cost = cost_of(differences_ns, 3.0, 1.0, probed_share=0.125)
    assert (cost.cost_ns, cost.low_ns, cost.high_ns) == (4 + 5.5 / 8, 4 + 2.0 / 8, 4 + 9.0 / 8)


def test_blocks_that_are_not_whole_or_of_another_process_are_left_out() -> None:
    marked, cpu, order, (worker,) = blocks([50, 70, 90])
    torn = np.delete(np.arange(len(cpu)), 9)  # a batch was lost
    assert differences(marked[torn], cpu[torn], order[torn], (worker[torn],)).tolist() == [70, 90]
    again = cpu.copy()
    again[28:] = np.where(again[28:] == NOT_OBSERVED, NOT_OBSERVED, again[28:] - again[28] + 1)
    assert differences(marked, again, order, (worker,)).tolist() == [50, 90]
    two = np.append(worker[:10], worker[10:] + 1)  # no block is of two threads
    assert differences(marked, cpu, order, (two,)).tolist() == [70, 90]


def test_rows_of_several_threads_come_in_any_order() -> None:
    parts = [blocks([50, 70], worker=0), blocks([10, 30], worker=1)]
    marked, cpu, order = (np.concatenate([part[n] for part in parts]) for n in range(3))
    worker = np.concatenate([part[3][0] for part in parts])
    mixed = np.random.default_rng(1).permutation(len(cpu))
    told = differences(marked[mixed], cpu[mixed], order[mixed], (worker[mixed],))
    assert sorted(told.tolist()) == [10, 30, 50, 70]


def test_the_words() -> None:
    measured, noisy = CostPerBatch("measured", 9, 40_000.0, 30_000.0, 60_000.0), CostPerBatch("too-short")
    text = own_cost_text(OwnCost(measured, None, 9_000.0), 1_000_000)
    assert text == "the loop's thread: 40.0 µs a batch (30.0 µs to 60.0 µs), 4.0% of a step"
    assert "not measured: it takes 896 batches" in own_cost_text(OwnCost(noisy, noisy, None))
    below = CostPerBatch("below-noise", 9, None, -9.0, 9_000.0)
    assert "not measurable here, below 9.00 µs" in own_cost_text(OwnCost(below, None, None))
    beside = OwnCost(measured, None, None, threads_ns=5_000.0, handover_ns=4_000.0)
    assert own_cost_text(beside).endswith(
        "; the threads that write and sample: 5.00 µs a batch; the times in a batch's pickle: 4.00 µs a batch"
    )
    assert own_cost_text(None) == "not observed"


@pytest.mark.parametrize(
    ("workers", "batches", "steps", "said"),
    [
        (
            1,
            7,
            7,
            "at one of 8.2 of the workers' batches from batch 1 on and at one of 8.2 of the loop's steps",
        ),
        (1, 7, 4, "at one of 8.2 of the workers' batches from batch 1 on, which stands"),
        (1, 4, 7, "at one of 8.2 of the loop's steps from step 1 on, which stands"),
        (1, 4, 4, None),
        (0, 7, 7, "at one of 8.2 batches from batch 1 on, which stands"),
    ],
)
def test_each_side_of_a_run_says_from_where_on_few_were_probed(
    workers: int, batches: int, steps: int, said: str | None, tmp_path: Path
) -> None:
    make_run(tmp_path / "whole", Plan(batches=320, workers=workers))
    run = unprobe(tmp_path / "whole", tmp_path / "some", every=8, block=batches)
    unprobe_loop(run, every=8, block=steps)
    own = read_own_cost(read_run(run))
    assert own is not None
    assert own.thinned == (Thinned(1, 319, 39) if batches == 7 else None)
    assert own.thinned_steps == (Thinned(1, 319, 39) if steps == 7 and workers else None)
    text = thinned_text(own)
    assert text == "" if said is None else f"it looked {said}" in text


def test_a_short_run_says_how_short(tmp_path: Path) -> None:
    own = load(make_run(tmp_path / "run", Plan(batches=40))).verdict.as_dict()["own_cost"]
    assert own["main"]["state"] == own["workers"]["state"] == "too-short"
    assert own["needed_batches"] == NEEDED_BATCHES


PLANS = {
    "workers": Plan(batches=200, jitter=0.1, stages={"read": 30 * MS, "decode": 60 * MS, "collate": 4 * MS}),
    "no workers": Plan(batches=120, workers=0, stages={"read": 5 * MS, "decode": 60 * MS}, jitter=0.1),
    "four workers, ahead": Plan(batches=200, workers=4, stages={"decode": 5 * MS}),
    "transfer": Plan(batches=200, transfer=40 * MS),
    "wrapper": Plan(batches=200, accelerator="none", main=15 * MS, stages={"stage:tokenise": 90 * MS}),
    "two epochs": Plan(batches=60, epochs=3),
    "rarely slow": Plan(
        batches=600, workers=0, stages={"read": [5 * MS] * 16 + [400 * MS], "decode": 20 * MS}
    ),
    "out of order": Plan(batches=200, in_order=False, jitter=0.5, stages={"decode": 60 * MS}),
}


@pytest.mark.parametrize(("every", "block"), [(16, 4), (32, 28), (8, 7)])
@pytest.mark.parametrize("name", PLANS)
def test_unprobed_batches_change_no_verdict_and_no_sum(
    name: str, every: int, block: int, tmp_path: Path
) -> None:
    plan = PLANS[name]
    if every == 32:  # blocks of this need longer runs
        plan = replace(plan, batches=4 * plan.batches)
    whole = load(make_run(tmp_path / "whole", plan))
    some = load(unprobe(tmp_path / "whole", tmp_path / "some", every, block))
    assert said(some) == said(whole)
    assert whole.ledger is not None
    assert some.ledger is not None
    wall = some.ledger.window.wall_ns
    assert wall == whole.ledger.window.wall_ns
    for part in ("ledger_ns", "path_ns"):
        ours, theirs = getattr(some.ledger, part), getattr(whole.ledger, part)
        assert sum(ours.values()) == wall
        moved = sum(abs(ours.get(owner, 0) - theirs.get(owner, 0)) for owner in {*ours, *theirs})
        assert moved / wall < 0.02, (part, ours, theirs)
    assert "unknown" not in ours or ours["unknown"] <= theirs.get("unknown", 0) + US


def said(analysis: Analysis) -> tuple[Any, ...]:
    verdict = analysis.verdict
    return verdict.cause, verdict.detail, verdict.mechanism, verdict.band, verdict.fix


def test_what_unprobed_batches_need_is_that_of_batches_before_them(tmp_path: Path) -> None:
    """A demand is never 0 for want of looking, and no longer than the batch took."""
    make_run(tmp_path / "whole", PLANS["workers"])
    some = load(unprobe(tmp_path / "whole", tmp_path / "some"))
    timeline = some.timeline
    assert timeline.unprobed is not None
    assert timeline.stand_in is not None
    gone = np.flatnonzero(timeline.unprobed)
    assert len(gone) >= 40
    others = timeline.stand_in[gone]
    assert not timeline.unprobed[others].any()
    assert (timeline.worker[others] == timeline.worker[gone]).all()
    assert len(np.unique(others)) >= 0.8 * len(others), "each stands for few"
    wall = timeline.finish_ns - timeline.start_ns
    assert (np.abs(np.log(wall[gone] / wall[others])) < 0.25).all(), "that took about as long"
    assert some.attribution is not None
    making = making_of(some.attribution.stages, some.attribution.counters, False)
    wall = (timeline.finish_ns - timeline.start_ns)[gone]
    assert np.allclose(making.wall[gone], wall, rtol=1e-5)
    shares = making.shares()
    assert np.allclose(shares[gone], shares[others], atol=1e-5)
    demands = read_demands(some.run, some.attribution)
    assert (demands.batches.make_cpu > 0).all()
    assert (demands.batches.read_bytes > 0).all()


def test_what_is_compared_with_a_whole_process_is_not_of_the_probed_batches_alone(tmp_path: Path) -> None:
    plan = replace(PLANS["workers"], batches=640, jitter=0.0)
    whole = load(make_run(tmp_path / "whole", plan))
    some = load(unprobe(tmp_path / "whole", tmp_path / "some", 32, 28))
    asked = []
    for analysis in (whole, some):
        assert analysis.attribution is not None
        assert analysis.facts is not None
        asked.append(Observed.of(analysis.run, analysis.attribution, analysis.facts, "decode"))
    all_of, few_of = asked
    for column in ("bytes", "cpu_ns"):
        assert few_of.whole(column) == pytest.approx(all_of.total(column), rel=0.02)
        assert (few_of.total(column) or 0) < 0.2 * (all_of.total(column) or 0)
    assert few_of.run_ns == all_of.run_ns
    assert few_of.all_batches == all_of.batches == 640
    assert few_of.batches == 80


def test_what_stands_for_longer_batches_is_scaled_to_them_in_every_figure(tmp_path: Path) -> None:
    """One of eight batches was probed, and took a third of the time of each other: bytes alone are alike."""
    times = [20 * MS] + [60 * MS] * 7
    plan = Plan(
        batches=320,
        warmup=8,
        workers=1,
        stages={"decode": times},
        batch_columns={"helper_cpu_ns": [n // 2 for n in times], "runq_ns": [n // 10 for n in times]},
    )
    whole = load(make_run(tmp_path / "whole", plan))
    some = load(unprobe(tmp_path / "whole", tmp_path / "some", 8, 7))
    asked, recorded, cores = [], [], []
    for analysis in (whole, some):
        assert analysis.attribution is not None
        assert analysis.facts is not None
        asked.append(Observed.of(analysis.run, analysis.attribution, analysis.facts, "decode"))
        recorded.append(read_recorded(analysis.run, analysis.attribution))
        cores.append((analysis.facts.own_cores, analysis.facts.waited_cores))
        measured, wall = analysis.timeline.measured, analysis.attribution.window.wall_ns
        counted = analysis.attribution.counters
        assert analysis.facts.waited_cores == pytest.approx(counted.runq[measured].sum() / wall, rel=1e-4)
    assert cores[1] == pytest.approx(cores[0], rel=1e-3)
    for column in ("cpu_ns", "runq_ns", "helper_cpu_ns", "bytes"):
        assert asked[1].whole(column) == pytest.approx(asked[0].whole(column), rel=1e-3), column
        assert asked[0].whole(column) == asked[0].total(column)
    assert recorded[1].helper_cpu == pytest.approx(recorded[0].helper_cpu, rel=1e-3)


def test_a_batch_that_none_stands_for_is_unknown_inside(tmp_path: Path) -> None:
    make_run(tmp_path / "whole", Plan(batches=40, workers=0))
    some = load(unprobe(tmp_path / "whole", tmp_path / "some", every=1000, block=1000))
    assert some.timeline.stand_in is not None
    assert (some.timeline.stand_in == -1).all()
    assert some.ledger is not None
    assert sum(some.ledger.path_ns.values()) == some.ledger.window.wall_ns
    assert "decode" not in some.ledger.path_ns


def test_a_run_without_unprobed_batches_is_read_as_ever(tmp_path: Path) -> None:
    run = load(make_run(tmp_path / "run", Plan(batches=40))).run
    timeline = read_timeline(run)
    assert timeline.unprobed is None
    assert timeline.inside_row is timeline.batch_row
    assert set(read_stages(run, timeline).making) == {"read", "decode", "collate"}
