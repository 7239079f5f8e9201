from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.devices import STORAGE
from pipeprof.report.text.forecast import need_lines
from pipeprof.simulate.catalogue import catalogue
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.predict import Predictor, predict
from pipeprof.simulate.search import heat_map, what_would_it_take
from pipeprof.simulate.tuning.tried import scenario_keys
from tests.factory import MS, Plan
from tests.simulate.common import HDD, READ_NS, demands_of, hdd_plan

WORDS = (
    "more-workers fewer-workers no-workers deeper-prefetch out-of-order persistent-workers ram shards "
    "faster-storage pin device-prefetch cheaper-decode cheaper-transform lighter-transfer more-cores "
    "free-cores loop none"
)


@pytest.fixture(scope="module")
def hdd(tmp_path_factory: pytest.TempPathFactory) -> Demands:
    return demands_of(tmp_path_factory.mktemp("made") / "run", hdd_plan(batches=120), HDD)


def test_every_fix_has_a_word_of_the_design_and_says_what_to_do(hdd: Demands) -> None:
    words = set(WORDS.split())
    for fix in catalogue(hdd):
        assert fix.word in words
        assert fix.title
        assert fix.how
        assert fix.knobs != hdd.measured


def test_a_fix_has_the_keys_of_the_scenario_that_carry_it_out(hdd: Demands) -> None:
    keys = {(fix.word, scenario_keys(fix)) for fix in catalogue(hdd) if fix.keys}
    assert {
        ("ram", ("storage.tier=ram",)),
        ("ram", ("storage.tier=ram", "storage.keep=decoded")),
        ("faster-storage", ("storage.tier=nvme",)),
        ("shards", ("data.format=tar_shards",)),
    } <= keys


def test_the_heat_map_holds_a_prediction_for_each_pair(hdd: Demands) -> None:
    found = heat_map(Predictor(hdd), workers=(0, 1, 2, 4), prefetch=(1, 2))
    assert found.workers == (0, 1, 2, 4)
    assert [len(row) for row in found.cells] == [2] * 4
    rates = [row[1].throughput.value for row in found.cells]
    assert rates[0] == pytest.approx(rates[1], rel=0.02), "a disk alone does not care who waits for it"
    assert rates[2] == pytest.approx(1e9 / READ_NS, rel=0.03)
    assert found.as_dict()["throughput_samples_per_s"][2][1] == rates[2]


def test_what_it_takes_is_enough_and_less_is_not(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"decode": 100 * MS}, compute=21 * MS, batches=200)
    demands = demands_of(tmp_path / "run", plan)
    needs = {need.resource: need for need in what_would_it_take(Predictor(demands), demands.measured, 0.05)}
    assert needs["workers"].amount == 5
    assert needs["cores"].amount == 5
    assert "storage bandwidth" not in needs, "no storage was observed"


def test_what_it_takes_is_told_with_its_interval_and_what_it_rests_on(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"decode": 100 * MS}, compute=21 * MS, batches=100)
    demands = demands_of(tmp_path / "run", plan, machine={"cpu_count": 2, "usable_cores": 2})
    found = what_would_it_take(Predictor(demands), demands.measured, 0.05)
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
    plan = Plan(workers=1, stages=stages, compute=20 * MS, batches=60, epochs=3, startup_ns=MS)
    demands = demands_of(tmp_path / "run", plan, machine={"cpu_count": 16, "usable_cores": 16})
    assert predict(demands, replace(demands.measured, workers=64)).stall.value > 0.1
    needs = {need.resource: need for need in what_would_it_take(Predictor(demands), demands.measured, 0.1)}
    assert needs["workers"].amount == 5


def test_each_cell_of_the_map_has_its_interval_and_what_it_rests_on(hdd: Demands) -> None:
    found = heat_map(Predictor(hdd), workers=(1, 8), prefetch=(2,))
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
    needs = {need.resource: need for need in what_would_it_take(Predictor(demands), knobs, 0.05)}
    assert needs["workers"].amount is None, "more workers do not turn the disk faster"
    reads = needs["storage requests"]
    assert reads.amount is not None
    assert 145 < reads.amount < 170
    assert reads.present == pytest.approx(1e9 / READ_NS, rel=0.05)
    bandwidth = needs["storage bandwidth"].amount
    assert bandwidth is not None
    assert bandwidth == pytest.approx(reads.amount * 0.11, abs=1)
