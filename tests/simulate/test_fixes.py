from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pipeprof
from pipeprof.devices import STORAGE
from pipeprof.report.forecast import need_lines
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.fixes import Ranked, advised, catalogue, headspace, rank
from pipeprof.simulate.predict import predict
from pipeprof.simulate.search import heat_map, what_would_it_take
from tests.factory import MS, Plan
from tests.simulate.common import CPU_ONLY, HDD, READ_NS, demands_of, hdd_plan, recorded

WORDS = (
    "more-workers fewer-workers deeper-prefetch out-of-order persistent-workers ram faster-storage shards "
    "pin device-prefetch cheaper-decode cheaper-transform lighter-transfer more-cores free-cores loop none"
)


@pytest.fixture(scope="module")
def hdd(tmp_path_factory: pytest.TempPathFactory) -> Demands:
    return demands_of(tmp_path_factory.mktemp("made") / "run", hdd_plan(batches=120), HDD)


def by_word(ranked: list[Ranked]) -> dict[str, Ranked]:
    found: dict[str, Ranked] = {}
    for one in ranked:
        found.setdefault(one.fix.word, one)
    return found


def test_every_fix_has_a_word_of_the_design_and_says_what_to_do(hdd: Demands) -> None:
    words = set(WORDS.split())
    for fix in catalogue(hdd):
        assert fix.word in words
        assert fix.title
        assert fix.how
        assert fix.knobs != hdd.measured


def test_fixes_of_a_slow_disk(hdd: Demands) -> None:
    _, ranked = rank(hdd)
    found = by_word(ranked)
    assert found["faster-storage"].gain > 1.5
    assert found["faster-storage"].prediction.limit == "decode", "then the CPU: decode"
    assert found["shards"].prediction.limit == "decode"
    assert found["more-workers"].fix.knobs.workers == 2, "two keep the disk busy: the cheapest of equals"
    assert 0.3 < found["more-workers"].gain < 0.7
    assert found["more-workers"].prediction.limit == "storage"
    assert found["cheaper-decode"].gain < 0.3
    assert abs(found["loop"].gain) < 0.01
    assert ranked == sorted(ranked, key=lambda one: (not one.feasible, -one.gain))
    best = advised(ranked)
    assert best is not None
    assert best.fix.word == "ram"


def test_a_decode_bound_worker_beside_idle_cores_wants_company(tmp_path: Path) -> None:
    run = recorded(
        tmp_path / "run", Plan(workers=1, stages={"decode": 100 * MS}, compute=20 * MS, batches=100)
    )
    answer = pipeprof.load(run.directory)
    assert answer.verdict.cause == "decode"
    assert answer.verdict.fix == "more-workers"
    best = advised(list(answer.fixes))
    assert best is not None
    assert best.fix.knobs.workers in (6, 8), "five would do, six are asked about"
    assert best.prediction.limit == "accelerator"


def test_nothing_is_advised_to_a_run_that_lacks_nothing(tmp_path: Path) -> None:
    answer = pipeprof.load(recorded(tmp_path / "run", Plan(workers=4, batches=100)).directory)
    assert advised(list(answer.fixes)) is None
    assert answer.verdict.fix == "none"


def test_stragglers_want_deeper_prefetching_or_another_order(tmp_path: Path) -> None:
    slow = [400 * MS if k % 24 == 3 else 25 * MS for k in range(240)]
    plan = Plan(workers=4, prefetch=1, batches=240, stages={"decode": slow}, compute=12 * MS)
    _, ranked = rank(demands_of(tmp_path / "run", plan))
    best = advised(ranked)
    assert best is not None
    assert best.fix.word in ("deeper-prefetch", "out-of-order")


def test_what_does_not_fit_in_memory_is_no_advice(hdd: Demands) -> None:
    small = replace(hdd, memory_bytes=100 << 20)
    _, ranked = rank(small)
    assert not by_word(ranked)["ram"].feasible
    best = advised(ranked)
    assert best is not None
    assert best.fix.word in ("faster-storage", "shards")


def test_headspace_is_what_the_accelerator_could_still_take(hdd: Demands) -> None:
    base, _ = rank(hdd)
    assert base.throughput.value + headspace(hdd, base).value == pytest.approx(32 / 0.1, rel=0.02)


def test_the_heat_map_holds_a_prediction_for_each_pair(hdd: Demands) -> None:
    found = heat_map(hdd, hdd.measured, workers=(0, 1, 2, 4), prefetch=(1, 2))
    assert found.workers == (0, 1, 2, 4)
    assert [len(row) for row in found.cells] == [2] * 4
    rates = [row[1].throughput.value for row in found.cells]
    assert rates[0] == pytest.approx(rates[1], rel=0.02), "a disk alone does not care who waits for it"
    assert rates[2] == pytest.approx(1e9 / READ_NS, rel=0.03)
    assert found.as_dict()["throughput_samples_per_s"][2][1] == rates[2]


def test_what_it_takes_is_enough_and_less_is_not(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"decode": 100 * MS}, compute=21 * MS, batches=200)
    demands = demands_of(tmp_path / "run", plan)
    needs = {need.resource: need for need in what_would_it_take(demands, demands.measured, 0.05)}
    assert needs["workers"].amount == 5
    assert needs["cores"].amount == 5
    assert "storage bandwidth" not in needs, "no storage was observed"


def test_what_it_takes_is_told_with_its_interval_and_what_it_rests_on(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"decode": 100 * MS}, compute=21 * MS, batches=100)
    demands = demands_of(tmp_path / "run", plan, machine={"cpu_count": 2, "usable_cores": 2})
    found = what_would_it_take(demands, demands.measured, 0.05)
    needs = {need.resource: need for need in found}
    assert needs["workers"].amount is None, "two cores make 20 batches a second, whoever is on them"
    assert needs["workers"].as_dict()["stall_share"] is None
    told = needs["cores"].as_dict()
    assert told["amount"] == 5
    assert told["stall_share"]["low"] <= told["stall_share"]["value"] < 0.05 < told["stall_share"]["high"]
    assert "5 cores: this machine has 2; more are extrapolated" in told["extrapolations"]
    text = "\n".join(need_lines(found, 0.05))
    assert "cores: 5 (now 2): stall" in text and "¹\u00a0²" in text
    assert "\n¹ 5 cores: this machine has 2; more are extrapolated\n² 5 workers from a run with 1" in text


def test_too_many_workers_do_not_hide_that_fewer_are_enough(tmp_path: Path) -> None:
    """In each epoch's beginning all are at their first batch: sixty-four share sixteen cores for it."""
    stages = {"decode": 100 * MS, "collate": MS}
    plan = Plan(workers=1, stages=stages, compute=20 * MS, batches=60, epochs=3, startup_ns=20 * MS)
    demands = demands_of(tmp_path / "run", plan, machine={"cpu_count": 16, "usable_cores": 16})
    assert predict(demands, replace(demands.measured, workers=64)).stall.value > 0.1
    needs = {need.resource: need for need in what_would_it_take(demands, demands.measured, 0.1)}
    assert needs["workers"].amount == 5


def test_each_cell_of_the_map_has_its_interval_and_what_it_rests_on(hdd: Demands) -> None:
    found = heat_map(hdd, hdd.measured, workers=(1, 8), prefetch=(2,))
    told = found.as_dict()
    for row, cells in enumerate(found.cells):
        low, high = told["throughput_interval"][row][0]
        assert low < told["throughput_samples_per_s"][row][0] < high
        assert told["stall_interval"][row][0] == [cells[0].stall.low, cells[0].stall.high]
    assert not any("far from what was measured" in text for text in told["extrapolations"][0][0])
    assert any("far from what was measured" in text for text in told["extrapolations"][1][0])


def test_what_a_disk_bound_run_takes_of_its_storage(tmp_path: Path) -> None:
    # two workers on a disk of 75 files a second, the accelerator takes 160
    demands = demands_of(tmp_path / "run", hdd_plan(workers=4, compute=200 * MS, batches=120), HDD)
    knobs = replace(demands.measured, storage=STORAGE["hdd-7200"])
    needs = {need.resource: need for need in what_would_it_take(demands, knobs, 0.05)}
    assert needs["workers"].amount is None, "more workers do not turn the disk faster"
    reads = needs["storage requests"]
    assert reads.amount is not None
    assert 145 < reads.amount < 170
    assert reads.present == pytest.approx(1e9 / READ_NS, rel=0.05)
    bandwidth = needs["storage bandwidth"].amount
    assert bandwidth is not None
    assert bandwidth == pytest.approx(reads.amount * 0.11, abs=1)


def test_headspace_without_a_read_is_what_the_code_costs(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", Plan(workers=1, batches=80, stages=CPU_ONLY, compute=20 * MS), HDD)
    assert not demands.storage_observed
    base, _ = rank(demands)
    assert base.throughput.value == pytest.approx(32 / 0.0412, rel=0.02)
    assert base.throughput.value + headspace(demands, base).value == pytest.approx(32 / 0.02, rel=0.02)
