"""Prediction between no workers and some: memory that is new for each batch, and what handing over takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeprof.record.reader import load
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import predict
from pipeprof.simulate.sampling import CROWDED, changed, cpu_by_owner
from pipeprof.simulate.uncertainty import work_error
from tests.factory import MS, Plan, make_run
from tests.simulate.common import demands_of
from tests.unprobed_runs import unprobe

FRESH = {"cpu_count": 16, "usable_cores": 16, "fresh_byte_ns": 0.25, "private_byte_ns": 0.1}


def test_batches_cross_between_processes_in_fresh_memory(tmp_path: Path) -> None:
    """Of no worker's collating it is known what fresh pages cost; with workers they pay for them."""
    plan = Plan(workers=2, stages={"decode": 40 * MS, "collate": 8 * MS}, compute=MS, batches=60)
    machine = {"cpu_count": 16, "usable_cores": 16, "fresh_byte_ns": 0.25}
    demands = demands_of(tmp_path / "workers", plan, machine=machine)
    fresh_ns = 0.25 * demands.batch_bytes
    assert 0 < fresh_ns < 8 * MS
    alone = cpu_by_owner(demands, replace(demands.measured, workers=0))["collate"]
    assert alone.mean() == pytest.approx(8 * MS - fresh_ns, rel=0.02)
    demands = demands_of(tmp_path / "alone", replace(plan, workers=0), machine=machine)
    made = cpu_by_owner(demands, replace(demands.measured, workers=2))["collate"]
    assert made.mean() == pytest.approx(8 * MS + fresh_ns, rel=0.02)
    assert cpu_by_owner(demands, demands.measured)["collate"].mean() == pytest.approx(8 * MS, rel=0.02)


@pytest.mark.parametrize(
    ("touched", "paid"),
    [(None, 1.0), (1.0, 1.0), (2.0, 1.0), (0.01, 0.0)],
    ids=["not observed", "all", "and more", "elsewhere"],
)
def test_the_run_tells_whether_collating_paid_for_fresh_memory(
    tmp_path: Path, touched: float | None, paid: float
) -> None:
    """A collate function of the user's may put batches together elsewhere: the queue thread moves them."""
    plan = Plan(workers=2, stages={"decode": 40 * MS, "collate": 8 * MS}, compute=MS, batches=60)
    size = demands_of(tmp_path / "size", plan, machine=FRESH).batch_bytes
    columns = {} if touched is None else {"touched_bytes": round(touched * size)}
    demands = demands_of(tmp_path / "run", replace(plan, batch_columns=columns), machine=FRESH)
    alone = cpu_by_owner(demands, replace(demands.measured, workers=0))["collate"]
    assert alone.mean() == pytest.approx(8 * MS - paid * 0.25 * size, rel=0.02)


@pytest.mark.parametrize(("times", "growth"), [(0.0, 1.0), (1.5, 1.5), (4.5, 2.0)])
def test_fresh_memory_costs_what_the_kernel_took_in_the_run(
    tmp_path: Path, times: float, growth: float
) -> None:
    """Beside other processes a page costs more than on the idle machine, as long as it can be the page."""
    plan = Plan(workers=2, stages={"decode": 40 * MS, "collate": 20 * MS}, compute=MS, batches=400)
    size = demands_of(tmp_path / "size", plan, machine=FRESH).batch_bytes
    took = round(times * 0.25 * size)
    columns = {"touched_bytes": round(size), "system_ns": [took * (batch // 2) for batch in range(400)]}
    demands = demands_of(tmp_path / "run", replace(plan, batch_columns=columns), machine=FRESH)
    alone = cpu_by_owner(demands, replace(demands.measured, workers=0))["collate"]
    assert alone.mean() == pytest.approx(20 * MS - growth * 0.25 * size, rel=0.02)


def test_time_in_the_kernel_is_known_of_probed_batches_alone(tmp_path: Path) -> None:
    """It adds up: of an unprobed batch it is not what its worker had spent long before."""
    plan = Plan(workers=2, stages={"decode": 40 * MS, "collate": 20 * MS}, compute=MS, batches=400)
    size = demands_of(tmp_path / "size", plan, machine=FRESH).batch_bytes
    took = round(1.5 * 0.25 * size)
    columns = {"touched_bytes": round(size), "system_ns": [took * (batch // 2) for batch in range(400)]}
    run = make_run(tmp_path / "run", replace(plan, batch_columns=columns), machine=FRESH)
    for name, every, block in (("some", 16, 4), ("few", 100, 96)):
        demands = open_run(load(unprobe(run, tmp_path / name, every, block)))
        alone = cpu_by_owner(demands, replace(demands.measured, workers=0))["collate"]
        assert alone.mean() == pytest.approx(20 * MS - 1.5 * 0.25 * size, rel=0.02)


def test_a_batch_too_large_to_be_reused_is_fresh_memory_without_workers_too(tmp_path: Path) -> None:
    plan = Plan(workers=2, stages={"decode": 40 * MS, "collate": 30 * MS}, compute=MS, batches=60)
    large = 64 << 20
    columns = {"bytes": large, "touched_bytes": large}
    machine = {**FRESH, "released_byte_ns": 0.05}
    demands = demands_of(tmp_path / "run", replace(plan, batch_columns=columns), machine=machine)
    alone = replace(demands.measured, workers=0)
    made = cpu_by_owner(demands, alone)["collate"]
    assert made.mean() == pytest.approx(30 * MS - (0.25 - 0.1) * large, rel=0.02)
    assert changed(demands, alone)["loop"] == pytest.approx(demands.batches.loop), "it is given back too"


def test_the_loop_gives_back_what_workers_made(tmp_path: Path) -> None:
    """Where no device is timed that is within the step's time."""
    machine = {**FRESH, "released_byte_ns": 0.02}
    plan = Plan(workers=2, stages={"collate": 8 * MS}, compute=6 * MS, batches=60, accelerator="none")
    demands = demands_of(tmp_path / "workers", plan, machine=machine)
    given_back = 0.02 * demands.batch_bytes
    for workers, change in ((0, -given_back), (4, 0.0)):
        steps = changed(demands, replace(demands.measured, workers=workers))["compute"]
        assert (steps - demands.batches.compute)[demands.measured_rows] == pytest.approx(change)
    demands = demands_of(tmp_path / "alone", replace(plan, workers=0), machine=machine)
    steps = changed(demands, replace(demands.measured, workers=2))["compute"]
    assert (steps - demands.batches.compute)[demands.measured_rows] == pytest.approx(given_back)


def test_nothing_is_handed_over_without_workers(tmp_path: Path) -> None:
    """Between two batches a worker waits for its queue; without workers the loop asks its sampler alone."""
    plan = Plan(workers=2, stages={"decode": 4 * MS, "collate": MS}, compute=MS, batches=60)
    demands = demands_of(tmp_path / "run", plan)
    batches = replace(demands.batches, handover=np.full(len(demands.batches), 2.0 * MS))
    alone = changed(replace(demands, batches=batches), replace(demands.measured, workers=0))
    assert not any(alone[name].any() for name in ("handover", "handover_away", "receive", "receive_away"))


def test_waiting_to_be_handed_a_batch_takes_no_core(tmp_path: Path) -> None:
    """Four workers on a core, each 2 ms between its batches: all work, or 0.2 ms of it and waiting."""
    plan = Plan(workers=4, stages={"decode": 8 * MS}, compute=MS, batches=200)
    demands = demands_of(tmp_path / "run", plan, machine={"cpu_count": 1, "usable_cores": 1})
    work = np.full(len(demands.batches), 1.0 * MS)
    all_work, waiting = (
        replace(demands, batches=replace(demands.batches, handover=a * work, handover_away=b * work))
        for a, b in ((2.0, 0.0), (0.2, 1.8))
    )
    slow, fast = (predict(each, each.measured).rate for each in (all_work, waiting))
    assert fast > 1.15 * slow


def test_fresh_memory_for_other_workers_widens_the_interval(tmp_path: Path) -> None:
    """The kernel serves all of them: the cost of one worker alone may not be that of each of two."""
    plain = demands_of(tmp_path / "run", Plan(workers=1, batches=60, stages={"getitem": 4 * MS}, compute=MS))
    fresh = replace(plain.host.fresh, made_ns=3.0 * MS)
    paid = replace(plain, host=replace(plain.host, fresh=fresh))
    one, two = plain.measured, replace(plain.measured, workers=2)
    assert work_error(paid, one, 100) == work_error(plain, one, 100)
    assert work_error(paid, two, 100) > work_error(plain, two, 100) + 0.1


@pytest.mark.parametrize(
    ("cores", "workers", "asked", "crowd"),
    [(2, 1, 2, 1.0), (2, 1, 4, 1.0), (2, 2, 1, -1.0), (2, 2, 2, 0.0), (16, 1, 4, 0.2), (2, 0, 2, 1.0)],
)
def test_a_batch_is_waited_for_longer_where_other_workers_keep_the_cores_busy(
    tmp_path: Path, cores: int, workers: int, asked: int, crowd: float
) -> None:
    """Taking it is a conversation of two threads, and each of them waits for a core."""
    plan = Plan(workers=workers, stages={"decode": 20 * MS}, compute=MS, batches=60)
    demands = demands_of(tmp_path / "run", plan, machine={**FRESH, "usable_cores": cores})
    asked_for = changed(demands, replace(demands.measured, workers=asked))
    grown = asked_for["receive_away"] - demands.batches.receive_away
    expected = np.maximum(crowd * CROWDED * asked_for["receive"], -demands.batches.receive_away)
    assert grown == pytest.approx(expected)
    assert crowd <= 0 or grown.min() > 0
    by_name = replace(demands, measured=replace(demands.measured, shares_by_name=True))
    unchanged = changed(by_name, replace(by_name.measured, workers=asked))["receive_away"]
    assert unchanged == pytest.approx(demands.batches.receive_away)
