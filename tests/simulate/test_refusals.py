"""Questions that a run cannot answer are refused; what a question leaves out is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.errors import InconclusiveError
from pipeprof.record.reader import load
from pipeprof.simulate import catalogue as fixes
from pipeprof.simulate.catalogue import catalogue
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import Knobs, change
from pipeprof.simulate.predict import Predictor, predict
from pipeprof.simulate.ranking import headroom, rank
from pipeprof.simulate.sampling import changed, draw
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.simulate.common import CPU_ONLY, HDD, READ_NS, demands_from, demands_of, hdd_plan

S3 = {"tier": "network", "name": "s3://bucket", "emulated": False, "remote": True}
"""What run.json says of a remote place: no figures."""
READS = {"read": 60 * MS, "decode": 20 * MS}


def remote(directory: Path, **changes: object) -> Demands:
    plan = Plan(workers=1, stages=READS, compute=MS, batches=60, transfer=0, main=0)
    return demands_from(load(make_run(directory, plan, **{"storage": S3, **changes})))


def asked(demands: Demands, **settings: str) -> Knobs:
    """`storage_tier="nvme"` for `storage.tier=nvme`, in order."""
    pairs = {key.replace("__", ".", 1): value for key, value in settings.items()}
    return change(demands.measured, pairs, demands.step_ns)


@pytest.mark.parametrize("key", ["storage__bandwidth", "storage__shared_bandwidth"])
def test_storage_without_figures_has_no_bandwidth_to_change(tmp_path: Path, key: str) -> None:
    demands = remote(tmp_path / "run")
    with pytest.raises(InconclusiveError, match=r"storage\.tier"):
        asked(demands, **{key: "1MB/s"})
    told = asked(demands, storage__tier="nvme", **{key: "1MB/s"})
    assert predict(demands, told).limit == "storage"


def test_memory_has_no_figures_either(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", Plan(stages=CPU_ONLY))
    for key, value in (("storage.bandwidth", "1MB/s"), ("storage.figures.latency_ns", "5")):
        with pytest.raises(InconclusiveError, match="no figures to change"):
            change(demands.measured, {key: value})


@pytest.mark.parametrize("change_of", [{"cache_share": 0.5}, {"access": "shards"}])
def test_what_would_be_saved_of_unknown_storage_is_not_known(
    tmp_path: Path, change_of: dict[str, object]
) -> None:
    demands = remote(tmp_path / "run")
    with pytest.raises(InconclusiveError, match="no cost model"):
        predict(demands, replace(demands.measured, **change_of))
    elsewhere = replace(asked(demands, storage__tier="ssd"), **change_of)
    assert predict(demands, elsewhere).throughput.value > 0
    memory = predict(demands, replace(asked(demands, storage__tier="ram"), **change_of))
    assert any("lies in memory" in each.text for each in memory.extrapolations)


@pytest.mark.parametrize("owner", ["decod", "transform:Resize", "h2d", "read"])
def test_a_factor_on_what_was_not_recorded_is_refused(tmp_path: Path, owner: str) -> None:
    plan = Plan(stages=CPU_ONLY, copy=0, compute=MS)
    demands = demands_of(tmp_path / "run", plan)
    with pytest.raises(InconclusiveError, match=f"nothing of '{owner}'") as told:
        predict(demands, asked(demands, **{f"scale__{owner}": "0.5"}))
    assert "allowed: collate, decode, main, startup, transfer" in told.value.remedy


def test_decoded_samples_are_refused_where_neither_reading_nor_decoding_was_seen(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"getitem": 40 * MS}, compute=MS, batches=60)
    demands = demands_of(tmp_path / "run", plan)
    with pytest.raises(InconclusiveError, match="neither reading nor decoding"):
        predict(demands, asked(demands, storage__keep="decoded"))
    predictor = Predictor(demands)
    assert headroom(predictor).rate > 11 * predictor.base().rate, "what the code costs is known"
    reads = remote(tmp_path / "reads")
    no_decode = replace(
        reads, batches=replace(reads.batches, cpu={"stage:getitem": reads.batches.cpu["decode"]})
    )
    told = predict(no_decode, replace(no_decode.measured, keep="decoded"))
    assert any("no decoding was observed" in each.text for each in told.extrapolations)


def test_a_run_whose_cache_served_most_says_what_less_of_it_costs(tmp_path: Path) -> None:
    """Nine of ten bytes came from memory: the requests are those of the tenth."""
    storage = {
        "tier": "hdd",
        "name": HDD.name,
        "emulated": True,
        "model": HDD.figures(),
        "emulated_cache": {"limit_bytes": 10**9, "bytes_from_memory": 900, "bytes_from_device": 100},
    }
    plan = hdd_plan(workers=2, compute=MS, stages={"read": 32 * READ_NS})
    run = load(make_run(tmp_path / "run", plan, storage=storage))
    demands = demands_from(run)
    assert demands.measured.cache_share == pytest.approx(0.9)
    requests = changed(demands, demands.measured)["requests"].mean()
    for share, factor in ((0.9, 1), (0.5, 5), (0, 10)):
        knobs = replace(demands.measured, cache_share=share)
        assert changed(demands, knobs)["requests"].mean() == pytest.approx(factor * requests)
    as_it_is, half = (
        predict(demands, replace(demands.measured, cache_share=s)).throughput.value for s in (0.9, 0.5)
    )
    assert half == pytest.approx(as_it_is / 5, rel=0.05)
    from_shards = replace(demands, measured=replace(demands.measured, access="shards"))
    knobs = replace(demands.measured, access="files")
    assert changed(from_shards, knobs)["requests"].mean() == pytest.approx(3.2), "a tenth of 32 samples"
    full = replace(demands, measured=replace(demands.measured, cache_share=1.0))
    with pytest.raises(InconclusiveError, match="came from memory"):
        predict(full, replace(full.measured, cache_share=0.5))


def test_a_set_of_unknown_size_is_not_said_to_fit_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixes, "CATALOGUE", (fixes._memory,))
    demands = remote(tmp_path / "run", data=None)
    assert demands.place.set_bytes is None
    ranked = rank(Predictor(demands))
    files, decoded = (
        next(one for one in ranked if one.fix.title.startswith(title)) for title in ("the files", "decoded")
    )
    assert files.fix.ram_bytes is None
    assert files.as_dict()["ram_bytes"] is None
    assert files.as_dict()["feasible"] is None
    assert decoded.fix.ram_bytes is not None and decoded.as_dict()["feasible"] is True


def test_storage_of_the_users_own_may_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixes, "CATALOGUE", (fixes._storage,))
    ranked = rank(Predictor(remote(tmp_path / "run")))
    faster = [one for one in ranked if one.fix.word == "faster-storage"]
    assert {one.fix.keys for one in faster} == {"storage.tier=ssd", "storage.tier=nvme"}
    assert all(one.gain > 1 and "is not known" in one.fix.assumption for one in faster)
    on_nvme = remote(tmp_path / "nvme", storage={"tier": "nvme", "name": "/data", "emulated": False})
    assert "faster-storage" not in {fix.word for fix in catalogue(on_nvme)}


def test_a_device_slower_than_what_there_is_is_no_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the page cache: no device gives them sooner."""
    stages = {"read": MS // 10, "decode": 5 * MS}
    plan = Plan(workers=1, stages=stages, compute=MS, batches=60, transfer=0, main=0)
    demands = demands_from(load(make_run(tmp_path / "run", plan, storage=S3)))
    monkeypatch.setattr(fixes, "CATALOGUE", (fixes._storage,))
    assert {fix.word for fix in catalogue(demands)} == {"faster-storage"}
    assert rank(Predictor(demands)) == []


def test_what_a_rank_waited_for_the_others_is_none_of_its_own_python(tmp_path: Path) -> None:
    """Rank 0 computes 20 ms, rank 1 computes 60: rank 0 waits 41 ms after each step."""
    job = make_job(tmp_path / "job", Job(ranks=2, compute={1: 60 * MS}, steps=80))
    run = load(job / "rank-0")
    run.meta = replace(run.meta, loaders=(replace(run.meta.loaders[0], batch_size=4),))
    demands = demands_from(run)
    assert demands.batches.met.mean() == pytest.approx(41 * MS)
    assert demands.batches.loop.max() < MS
    found = predict(demands, demands.measured)
    assert 4 / 0.063 < found.throughput.value < 4 / 0.061, "20 + 41 ms, and what an SSD takes for four reads"
    assert found.ledger.ledger_ns["collective"] > 0.6 * found.ledger.window.wall_ns
    assert found.limit == "collective"
    assert any("one of 2 ranks" in each.text for each in found.extrapolations)
    for fix in catalogue(demands):
        if fix.word == "loop":
            assert predict(demands, fix.knobs).throughput.value < 1.05 * found.throughput.value


@pytest.mark.parametrize("scale", [{"ranks": 8}, {"nodes": 8}])
def test_a_job_is_not_multiplied_from_one_of_its_ranks(tmp_path: Path, scale: dict[str, int]) -> None:
    job = make_job(tmp_path / "job", Job(ranks=2))
    demands = demands_from(load(job / "rank-0"))
    with pytest.raises(InconclusiveError, match="one of 2 ranks"):
        predict(demands, replace(demands.measured, **scale))


def test_meetings_that_were_not_recorded_are_told_of(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", Job(ranks=2, recorded=False))
    demands = demands_from(load(job / "rank-0"))
    assert any("counts as computing" in note.text for note in demands.notes)
    assert "loop" not in {fix.word for fix in catalogue(demands)}


@pytest.mark.parametrize(
    ("ended", "world_size", "samples", "scenario", "wanted"),
    [
        (True, 4, 4 * 20 * 32, None, 20),  # a quarter of the set each: the epoch shows it
        (True, 1, 1000, None, 20),  # a sampler of its own
        (False, 1, 1000, None, 32),  # 31 whole batches and a small one
        (False, 1, 1000, {"resolved": {"loader": {"drop_last": True}}}, 31),
        (False, 4, 4 * 25 * 32, None, 25),
        (False, 1, 32, None, 20),  # no fewer than were seen
        (False, 1, None, None, 20),
    ],
)
def test_batches_of_an_epoch(
    tmp_path: Path,
    ended: bool,
    world_size: int,
    samples: int | None,
    scenario: dict[str, object] | None,
    wanted: int,
) -> None:
    plan = Plan(workers=2, stages=CPU_ONLY, batches=20, epochs=2 if ended else 1, warmup=2)
    path = make_run(tmp_path / "run", plan, world_size=world_size, scenario=scenario)
    if not ended:
        (path / "events.parquet").unlink()
    run = load(path)
    run.meta = replace(run.meta, loaders=(replace(run.meta.loaders[0], samples=samples),))
    demands = demands_from(run)
    assert demands.batches_per_epoch == wanted
    assert draw(demands, demands.measured, 60, seed=0).batches_per_epoch == (wanted if ended else 60)
