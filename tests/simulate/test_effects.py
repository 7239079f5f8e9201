"""What each knob and each fix changes, by planted demands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.devices import LINKS, storage_preset
from pipeprof.measure.host.profile import write_profile
from pipeprof.record.added.scaling_probe import ScalingPoint, ScalingProbe, write_scaling
from pipeprof.record.reader import load
from pipeprof.simulate.catalogue import PossibleFix, catalogue
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import MEMORY, Knobs, change
from pipeprof.simulate.predict import predict
from pipeprof.simulate.questions import knobs_asked
from pipeprof.simulate.sampling import PIN_BYTES_PER_S, changed, cpu_by_owner
from tests.devices.test_profile import measured as measured_device
from tests.factory import MS, Plan
from tests.simulate.common import CPU_ONLY, HDD, READ_NS, demands_from, demands_of, hdd_plan


def rate(demands: Demands, knobs: Knobs) -> float:
    return predict(demands, knobs).throughput.value


def fix_of(demands: Demands, word: str) -> PossibleFix:
    return next(fix for fix in catalogue(demands) if fix.word == word)


def test_a_link_copies_at_its_own_rate(tmp_path: Path) -> None:
    """A loop that does nothing but copy: the link sets the pace."""
    plan = Plan(batches=200, stages={"decode": MS}, copy=20 * MS, compute=MS, main=0, transfer=0)
    demands = demands_of(tmp_path / "run", plan)
    assert rate(demands, demands.measured) == pytest.approx(32 / 0.020, rel=0.03)
    asked = change(demands.measured, {"accelerator.link": "pcie-gen3"})
    copy_ns = LINKS["pcie-gen3"].copy_ns(round(demands.batch_bytes), pinned=False)
    assert changed(demands, asked)["copy"] == pytest.approx(copy_ns)
    assert rate(demands, asked) == pytest.approx(32e9 / copy_ns, rel=0.03)


@pytest.mark.parametrize(
    "asked", [{"loader.pin_memory": "true"}, {"accelerator.link": "pcie-gen3"}, {"storage.tier": "pinned"}]
)
def test_no_copy_is_added_that_the_run_did_not_show(tmp_path: Path, asked: dict[str, str]) -> None:
    plan = Plan(batches=60, stages={"read": MS, "decode": MS}, accelerator="none", compute=5 * MS)
    demands = demands_of(tmp_path / "run", plan)
    knobs = change(demands.measured, asked)
    assert not changed(demands, knobs)["copy"].any()
    assert rate(demands, knobs) >= 0.99 * rate(demands, demands.measured)
    told = predict(demands, knobs).extrapolations
    assert any("no copy to the device was observed" in each.text for each in told)


@pytest.mark.slow
def test_a_measured_device_predicts_as_its_model_does(tmp_path: Path) -> None:
    """The profile of what an SSD's model would have shown: the SSD's own figures come out again."""
    profile = tmp_path / "profile.json"
    write_profile(profile, {"tiers": [measured_device(storage_preset("ssd"), tier="ssd")]})
    demands = demands_of(
        tmp_path / "run", hdd_plan(compute=MS, workers=2, stages={"read": 32 * READ_NS}), HDD
    )
    on_it = knobs_asked(demands, (f"storage.profile={profile}", "loader.workers=4"), None, None)
    on_ssd = knobs_asked(demands, ("storage.tier=ssd", "loader.workers=4"), None, None)
    assert on_it.storage.tier == "ssd"
    assert rate(demands, on_it) == pytest.approx(rate(demands, on_ssd), rel=0.05)
    assert rate(demands, on_it) > 5 * rate(demands, demands.measured)


def test_pinning_on_a_real_device_takes_a_thread_and_a_faster_copy(tmp_path: Path) -> None:
    plan = Plan(batches=120, stages={"decode": MS}, copy=10 * MS, compute=MS, accelerator="cuda")
    demands = demands_of(tmp_path / "run", plan)
    asked = fix_of(demands, "pin").knobs
    drawn = changed(demands, asked)
    assert drawn["pin"] == pytest.approx(demands.batch_bytes * 1e9 / PIN_BYTES_PER_S)
    copy_ns = LINKS["pcie-gen3"].copy_ns(round(demands.batch_bytes), pinned=True)
    assert drawn["copy"] == pytest.approx(copy_ns)
    found = predict(demands, asked)
    assert found.throughput.value == pytest.approx(32e9 / max(drawn["pin"].mean(), copy_ns + MS), rel=0.05)
    assert found.throughput.value > 2 * rate(demands, demands.measured)
    assert any("pin thread was not observed" in each.text for each in found.extrapolations)


def test_decoded_samples_are_neither_read_nor_decoded(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(compute=MS), HDD)
    asked = change(demands.measured, {"storage.tier": "ram", "storage.keep": "decoded"})
    left = {owner: values.mean() for owner, values in cpu_by_owner(demands, asked).items() if values.any()}
    assert left == pytest.approx({"transform:Crop": 60 * MS, "collate": 4 * MS})
    assert rate(demands, asked) == pytest.approx(32 / 0.0645, rel=0.02)
    encoded = replace(asked, keep="encoded")
    assert rate(demands, encoded) == pytest.approx(32 / 0.2245, rel=0.02)
    assert encoded.storage == MEMORY


def test_a_lighter_transfer_leaves_a_quarter(tmp_path: Path) -> None:
    """The copy is the slowest of all: three quarters of it go."""
    plan = Plan(workers=1, batches=120, stages={"decode": MS}, copy=40 * MS, compute=MS)
    demands = demands_of(tmp_path / "run", plan)
    fix = fix_of(demands, "lighter-transfer")
    assert changed(demands, fix.knobs)["copy"] == pytest.approx(10 * MS)
    gain = rate(demands, fix.knobs) / rate(demands, demands.measured)
    assert gain == pytest.approx(4, rel=0.05)


def test_a_lighter_transfer_between_processes_leaves_a_quarter(tmp_path: Path) -> None:
    """Each batch is waited for, and comes 8 ms after it was made."""
    plan = Plan(workers=1, batches=60, stages={"decode": 10 * MS}, transfer=8 * MS, copy=0, compute=MS)
    demands = demands_of(tmp_path / "run", plan)
    drawn, before = (
        changed(demands, k) for k in (fix_of(demands, "lighter-transfer").knobs, demands.measured)
    )
    handed, handed_before = (one["transfer"] + one["receive"] for one in (drawn, before))
    assert handed_before.mean() == pytest.approx(8 * MS, rel=0.05)
    assert handed == pytest.approx(handed_before / 4)


@pytest.mark.parametrize(("pickling_ns", "offered"), [(0.4 * MS, False), (8.0 * MS, True), (None, False)])
def test_small_batches_of_many_tensors_are_worth_making_lighter(
    tmp_path: Path, pickling_ns: float | None, offered: bool
) -> None:
    demands = demands_of(tmp_path / "run", Plan(workers=1, batches=60, transfer=8 * MS, compute=MS))
    small = replace(demands, batch_bytes=1000.0, pickling_ns=pickling_ns)
    assert ("lighter-transfer" in {fix.word for fix in catalogue(small)}) == offered


def test_lighter_batches_leave_the_threads_that_compute(tmp_path: Path) -> None:
    plan = Plan(workers=1, batches=60, stages={"decode": 10 * MS}, transfer=2 * MS, copy=0, compute=MS)
    demands = demands_of(tmp_path / "run", plan)
    computing = replace(demands.batches, helper=demands.batches.helper * 0 + 50 * MS)
    busy = replace(demands, batches=computing)
    lighter = changed(busy, fix_of(demands, "lighter-transfer").knobs)["helper"]
    assert lighter.mean() == pytest.approx(50 * MS - 0.75 * 2 * MS, rel=0.02)


def test_the_sampler_draws_without_workers_too(tmp_path: Path) -> None:
    plan = Plan(workers=1, batches=60, stages={"decode": 10 * MS}, compute=MS)
    demands = demands_of(tmp_path / "run", plan)
    received = replace(demands.batches, receive=demands.batches.receive * 0 + 5 * MS)
    drawn = replace(demands, batches=received, sampler_ns=4.0 * MS)
    inline = replace(demands.measured, workers=0)
    assert changed(drawn, inline)["receive"] == pytest.approx(4 * MS)
    assert changed(drawn, drawn.measured)["receive"] == pytest.approx(5 * MS)


def test_a_transform_on_the_accelerator_costs_it_a_tenth(tmp_path: Path) -> None:
    plan = Plan(
        workers=1,
        batches=120,
        stages={"decode": 10 * MS, "transform:Normalize": 60 * MS},
        transfer=0,
        main=0,
        compute=20 * MS,
    )
    demands = demands_of(tmp_path / "run", plan)
    fix = fix_of(demands, "cheaper-transform")
    assert fix.title == "Normalize on the accelerator"
    drawn = changed(demands, fix.knobs)
    assert drawn["cpu"] == pytest.approx(10 * MS)
    assert drawn["compute"] == pytest.approx(26 * MS)
    assert rate(demands, demands.measured) == pytest.approx(32 / 0.070, rel=0.03)
    assert rate(demands, fix.knobs) == pytest.approx(32 / 0.0261, rel=0.03)


@pytest.mark.parametrize("kind", ["cpu", "none"])
def test_a_transform_cannot_move_to_where_it_is(tmp_path: Path, kind: str) -> None:
    """The CPU computes the steps as well: there is no other processor, or none was seen."""
    plan = Plan(stages={"transform:ToTensor": 60 * MS}, compute=5 * MS, synchronises=True, accelerator=kind)
    titles = {fix.title for fix in catalogue(demands_of(tmp_path / "run", plan))}
    assert "ToTensor in half the time" in titles
    assert not any("on the accelerator" in title for title in titles)


def test_more_cores_compute_a_step_sooner_where_they_compute_it(tmp_path: Path) -> None:
    """80 ms on 8 cores are 40 on 16: the step is all that there is to do."""
    plan = Plan(
        workers=1, stages={"decode": MS}, compute=80 * MS, synchronises=True, accelerator="cpu", main=0
    )
    demands = demands_of(tmp_path / "run", plan)
    rates = {
        cores: rate(demands, change(demands.measured, {"machine.cores": str(cores)})) for cores in (4, 8, 16)
    }
    assert rates[8] == pytest.approx(32 / 0.080, rel=0.03)
    assert rates[16] == pytest.approx(2 * rates[8], rel=0.05)
    assert rates[4] == pytest.approx(0.5 * rates[8], rel=0.05)


@pytest.mark.parametrize(
    ("stage", "word", "title"),
    [
        ("transform:RandomResizedCrop", "cheaper-transform", "RandomResizedCrop in half the time"),
        ("stage:tokenise", "cheaper-work", "tokenise in half the time"),
        ("transform:ToTensor", "cheaper-transform", "ToTensor on the accelerator"),
    ],
)
def test_only_what_takes_whole_batches_is_moved_to_the_accelerator(
    tmp_path: Path, stage: str, word: str, title: str
) -> None:
    plan = Plan(workers=1, batches=60, stages={"decode": 10 * MS, stage: 60 * MS}, compute=20 * MS)
    assert fix_of(demands_of(tmp_path / "run", plan), word).title == title


def test_free_cores_give_back_what_the_neighbours_took(tmp_path: Path) -> None:
    """Two workers and two neighbours on two cores: without them everything is twice as fast."""
    plan = Plan(workers=2, stages={"decode": 40 * MS}, compute=MS, batches=120, transfer=0, main=0)
    demands = demands_of(tmp_path / "run", plan)
    seen = replace(demands.host, other_cores=1.0)
    crowded = replace(demands, measured=replace(demands.measured, cores=2.0, neighbours=2.0), host=seen)
    unseen = replace(crowded, host=demands.host)
    assert "free-cores" not in {fix.word for fix in catalogue(unseen)}, "nobody saw them"
    free = fix_of(crowded, "free-cores")
    assert rate(crowded, free.knobs) / rate(crowded, crowded.measured) == pytest.approx(2, rel=0.05)
    assert "free-cores" not in {fix.word for fix in catalogue(demands)}


def test_each_owner_of_the_ledger_has_an_interval(tmp_path: Path) -> None:
    """A worker's CPU time may differ in the next run, and with it how long the accelerator waits for it."""
    plan = Plan(workers=1, batches=120, stages=CPU_ONLY, compute=20 * MS)
    demands = demands_of(tmp_path / "run", plan)
    found = predict(demands, demands.measured)
    wall_ns = found.ledger.window.wall_ns
    assert found.shares.keys() == found.ledger.ledger_ns.keys()
    for owner, share in found.shares.items():
        assert 0 <= share.low <= share.value <= share.high <= 1
        assert share.value == found.ledger.ledger_ns[owner] / wall_ns
    decode, compute = found.shares["decode"], found.shares["accelerator"]
    assert decode.high - decode.low > 0.05
    # with 18 % more of its work a batch takes 48.6 ms and not 41.2, of which the accelerator computes 20
    assert compute.low < 20 / 48 < 20 / 41.2 < compute.high
    told = found.as_dict()["ledger_share"]["decode"]
    assert told == decode.as_dict()


def test_a_device_that_sets_the_pace_leaves_the_ledger_little_doubt(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(), HDD)
    bound = predict(demands, replace(demands.measured, workers=8)).shares["storage"]
    free = predict(demands, demands.measured).shares["decode"]
    assert bound.value > 0.5
    assert (bound.high - bound.low) / bound.value < (free.high - free.low) / free.value


@pytest.mark.parametrize(
    ("recorded", "asked", "growth"), [(1, 4, 2.0), (4, 1, 0.5), (2, 2, 1.0), (0, 2, 1.2)]
)
def test_a_batch_costs_more_beside_others_as_a_probe_showed(
    recorded: int, asked: int, growth: float, tmp_path: Path
) -> None:
    """The CPU time of making grows by what four processes take over what the recorded number takes."""
    points = tuple(ScalingPoint(n, 9, cost) for n, cost in ((1, 1e6), (2, 1.2e6), (4, 2e6)))
    demands = demands_of(tmp_path / "run", Plan(batches=60, workers=recorded, stages=CPU_ONLY))
    knobs = change(demands.measured, {"loader.workers": str(asked)})
    unprobed = cpu_by_owner(demands, knobs)
    write_scaling(tmp_path / "run", ScalingProbe("train", points))
    probed = demands_from(load(tmp_path / "run"))
    assert cpu_by_owner(probed, knobs)["decode"] == pytest.approx(growth * unprobed["decode"])
    assert cpu_by_owner(probed, probed.measured)["decode"] == pytest.approx(demands.batches.cpu["decode"])
    assert any("a probe of its making" in each.text for each in predict(probed, knobs).extrapolations)
