from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeprof.devices import STORAGE
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import MEMORY, Knobs
from pipeprof.simulate.predict import predict, replay
from tests.factory import MS, Plan
from tests.simulate.common import (
    CPU_ONLY,
    HDD,
    READ_NS,
    demands_from,
    demands_of,
    hdd_plan,
    recorded,
    throughput,
)

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "synchronises": {"synchronises": True},
    "fast accelerator": {"compute": 2 * MS},
    "pinned": {"pin_memory": True},
    "three epochs": {"epochs": 3, "batches": 40},
    "uneven batches": {"jitter": 0.3, "compute": 2 * MS},
    "deep queue": {"queue_depth": 4, "compute": 2 * MS},
    "no device clock": {"accelerator": "none"},
}


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_replay_gives_back_the_run(tmp_path: Path, shape: str, workers: int) -> None:
    run = recorded(
        tmp_path / "run", Plan(**{"workers": workers, "batches": 100, "stages": CPU_ONLY, **SHAPES[shape]})
    )
    assert replay(demands_from(run)).throughput.value == pytest.approx(throughput(run), rel=0.01)


def test_a_replay_of_a_disk_bound_run_gives_it_back(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", hdd_plan(), HDD)
    assert replay(demands_from(run)).throughput.value == pytest.approx(throughput(run), rel=0.01)


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", Plan(workers=2, stages=CPU_ONLY, jitter=0.3, compute=2 * MS))
    knobs = replace(demands.measured, workers=3)
    once, again, other = (predict(demands, knobs, seed=seed) for seed in (1, 1, 2))
    assert once.as_dict() == again.as_dict()
    assert np.array_equal(once.timeline.take_ns, again.timeline.take_ns)
    assert not np.array_equal(once.timeline.take_ns, other.timeline.take_ns)


def test_two_workers_keep_a_disk_busy_that_one_leaves_idle(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(), HDD)
    one, two, four = (
        predict(demands, replace(demands.measured, workers=w)).throughput.value for w in (1, 2, 4)
    )
    disk = 1e9 / READ_NS
    assert one == pytest.approx(32e9 / (32 * READ_NS + 224 * MS), rel=0.01)
    assert two == pytest.approx(disk, rel=0.03)
    assert four == pytest.approx(disk, rel=0.03)


def test_workers_beyond_the_cores_gain_nothing(tmp_path: Path) -> None:
    demands = demands_of(
        tmp_path / "run", Plan(workers=2, stages=CPU_ONLY, compute=MS, batches=400, startup_ns=0)
    )
    knobs = replace(demands.measured, cores=2.0)
    two, eight = (predict(demands, replace(knobs, workers=w)).throughput.value for w in (2, 8))
    assert two == pytest.approx(2 * 32e9 / (41 * MS), rel=0.03)
    assert eight == pytest.approx(two, rel=0.05)


def test_ranks_share_cores_and_storage(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(), HDD)
    knobs = replace(demands.measured, workers=2)
    one, two = (predict(demands, replace(knobs, ranks=r)).throughput.value for r in (1, 2))
    assert two == pytest.approx(one, rel=0.03), "one disk serves both"
    knobs = replace(knobs, storage=MEMORY, cores=64.0)
    one, two = (predict(demands, replace(knobs, ranks=r)).throughput.value for r in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.03), "nothing is shared"


def test_ranks_wait_for_the_last_of_them_after_each_step(tmp_path: Path) -> None:
    """Steps of 10 or 30 ms by chance: one rank takes 20 ms on average, the slower of two 25."""
    compute = np.random.default_rng(1).choice([10 * MS, 30 * MS], 400).tolist()
    plan = Plan(stages={"read": MS}, batches=400, compute=compute, copy=0, main=0, synchronises=True)
    demands = demands_of(tmp_path / "run", plan)
    knobs = replace(demands.measured, storage=MEMORY, cores=64.0)
    one, two = (predict(demands, replace(knobs, ranks=r)).throughput.value for r in (1, 2))
    assert two / (2 * one) == pytest.approx(20 / 25, rel=0.05)


def test_nodes_share_the_storage_only(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(), HDD)
    knobs = replace(demands.measured, workers=2)
    one, four = (predict(demands, replace(knobs, nodes=n)).throughput.value for n in (1, 4))
    assert four == pytest.approx(one, rel=0.03)


def test_out_of_order_delivery_hides_a_straggler(tmp_path: Path) -> None:
    slow = [300 * MS if k % 16 == 3 else 20 * MS for k in range(160)]
    plan = Plan(workers=4, prefetch=1, batches=160, stages={"decode": slow}, compute=8 * MS)
    demands = demands_of(tmp_path / "run", plan)
    kept, free = (
        predict(demands, replace(demands.measured, in_order=order)).throughput.value
        for order in (True, False)
    )
    assert free > 1.1 * kept


def test_shards_save_a_disk_its_seeks(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(), HDD)
    files, shards = (
        predict(demands, replace(demands.measured, access=access)) for access in ("files", "shards")
    )
    assert files.limit == "storage"
    assert shards.limit == "decode"
    assert shards.throughput.value > 2 * files.throughput.value


def test_pinned_copies_do_not_hold_the_host(tmp_path: Path) -> None:
    plan = Plan(batches=400, startup_ns=0, stages={"decode": 5 * MS}, copy=10 * MS, compute=10 * MS)
    demands = demands_of(tmp_path / "run", plan)
    knobs = replace(demands.measured, prefetch_to_device=False)
    one_stream = predict(demands, knobs).throughput.value
    side_stream = predict(demands, replace(knobs, prefetch_to_device=True, pin_memory=True)).throughput.value
    assert one_stream == pytest.approx(32e9 / (20 * MS), rel=0.02)
    assert side_stream > 1.5 * one_stream


def test_start_up_is_paid_each_epoch_unless_workers_persist(tmp_path: Path) -> None:
    plan = Plan(workers=2, epochs=4, batches=20, startup_ns=400 * MS, stages=CPU_ONLY)
    demands = demands_of(tmp_path / "run", plan)
    fresh, kept = (predict(demands, replace(demands.measured, persistent_workers=p)) for p in (False, True))
    assert kept.throughput.value > 1.3 * fresh.throughput.value
    assert fresh.ledger.ledger_ns.keys() & {"startup", "main", "transfer", "unknown"}


@pytest.fixture(scope="module")
def demands(tmp_path_factory: pytest.TempPathFactory) -> Demands:
    return demands_of(tmp_path_factory.mktemp("made") / "run", hdd_plan(workers=2, jitter=0.1), HDD)


knobs_of = st.fixed_dictionaries(
    {
        "workers": st.integers(0, 6),
        "prefetch": st.integers(1, 4),
        "cores": st.sampled_from([0.5, 1.0, 2.0, 4.0]),
        "accelerator_speed": st.sampled_from([0.25, 1.0, 10.0]),
        "pin_memory": st.booleans(),
        "in_order": st.booleans(),
        "storage": st.sampled_from([STORAGE["hdd-7200"], STORAGE["sata-ssd"], STORAGE["rate-limit"], MEMORY]),
    }
)
BETTER: dict[str, Any] = {
    "more cores": lambda k: replace(k, cores=2 * k.cores),
    "a faster accelerator": lambda k: replace(k, accelerator_speed=2 * k.accelerator_speed),
    "data in memory": lambda k: replace(k, storage=MEMORY),
    "cheaper decoding": lambda k: k.scaled(decode=0.5),
    "a warm cache": lambda k: replace(k, cache_share=0.5),
}


@pytest.mark.parametrize("better", BETTER)
@given(changes=knobs_of)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_should_help_does_not_hurt(demands: Demands, better: str, changes: dict[str, Any]) -> None:
    knobs = replace(demands.measured, **changes)
    before, after = (predict(demands, k, steps=80, warmup=20) for k in (knobs, BETTER[better](knobs)))
    # a window of 60 steps begins and ends within a round of the workers
    assert after.throughput.value > before.throughput.value * 0.93


@given(changes=knobs_of)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_laws_of_every_prediction(demands: Demands, changes: dict[str, Any]) -> None:
    knobs: Knobs = replace(demands.measured, **changes)
    prediction = predict(demands, knobs, steps=60)
    t, ledger = prediction.timeline, prediction.ledger
    assert sum(ledger.ledger_ns.values()) == sum(ledger.path_ns.values()) == ledger.window.wall_ns
    for earlier, later in (
        (t.dispatch_ns, t.start_ns),
        (t.start_ns, t.finish_ns),
        (t.finish_ns, t.take_ns),
        (t.request_ns, t.take_ns),
        (t.take_ns, t.launch_ns),
        (t.take_ns, t.copy_start_ns),
        (t.copy_end_ns, t.compute_start_ns),
    ):
        assert (later >= earlier).all()
    assert (t.compute_start_ns[1:] >= t.compute_end_ns[:-1]).all()
    # no resource gives more than it has
    wall = ledger.window.wall_ns
    making = float(demands.batches.make_cpu[demands.measured_rows].mean())
    made = 60 - int(t.warmup.sum()) - knobs.outstanding
    assert made * making * 0.8 <= knobs.cores * wall
    for estimate in (prediction.throughput, prediction.utilization, prediction.stall):
        assert estimate.low <= estimate.value <= estimate.high


def test_cost_grows_linearly_with_the_batches_and_is_small(demands: Demands) -> None:
    knobs = replace(demands.measured, workers=4, batch_size=64)

    def cost(steps: int) -> float:
        began = time.process_time()
        predict(demands, knobs, steps=steps, warmup=5)
        return time.process_time() - began

    cost(200)
    short, long = min(cost(500) for _ in range(3)), min(cost(4000) for _ in range(2))
    assert long < 16 * short, "eight times the batches"


def test_computing_on_the_cpu_competes_with_the_workers(tmp_path: Path) -> None:
    plan = Plan(workers=2, stages={"decode": 40 * MS}, compute=20 * MS, synchronises=True, startup_ns=0)
    rates = {}
    for kind in ("emulated", "cpu"):
        made = demands_of(tmp_path / kind, replace(plan, accelerator=kind, batches=200))
        knobs = replace(made.measured, cores=2.0)
        rates[kind] = predict(replace(made, measured=knobs), knobs).throughput.value
    assert rates["emulated"] == pytest.approx(2 * 32e9 / (40 * MS), rel=0.05)
    assert rates["cpu"] == pytest.approx(2 * 32e9 / (80 * MS), rel=0.05), "two cores do 80 ms of work a batch"
