"""`pipeprof predict`: questions, refusals and stated extrapolations."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeprof
from pipeprof import cli
from pipeprof.devices import STORAGE
from pipeprof.errors import InconclusiveError, ScenarioError
from pipeprof.record.reader import load
from pipeprof.report.text import forecast
from pipeprof.simulate import questions
from pipeprof.simulate.catalogue import catalogue
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.other_programs import with_neighbours
from pipeprof.simulate.forecast import VAIN, Forecast
from pipeprof.simulate.knobs import Knobs, change
from pipeprof.simulate.predict import Predictor, predict, replay
from pipeprof.simulate.search import shared_storage
from tests.factory import MS, Plan, make_run
from tests.simulate.common import CPU_ONLY, HDD, demands_from, demands_of, hdd_plan, recorded


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of `pipeprof predict`."""
    monkeypatch.setattr(sys, "argv", ["pipeprof", "predict", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture
def hdd(tmp_path: Path) -> str:
    return str(recorded(tmp_path / "run", hdd_plan(), HDD).directory)


def test_one_question(hdd: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(monkeypatch, hdd, "--set", "storage.tier=nvme", "--set", "loader.workers=4", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    before, after = told["as_it_is"], told["prediction"]
    assert after["throughput_samples_per_s"]["value"] > 4 * before["throughput_samples_per_s"]["value"]
    assert after["throughput_samples_per_s"]["low"] < after["throughput_samples_per_s"]["value"]
    assert sum(after["ledger_ns"].values()) == after["wall_ns"]


def test_a_cluster_is_told_what_its_storage_must_deliver(
    hdd: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ("--ranks", "8", "--nodes", "8", "--set", "storage.tier=nvme")
    assert ask(monkeypatch, hdd, *question, "--set", "storage.shared_bandwidth=20GB/s", "--json") == 0
    plenty = json.loads(capsys.readouterr().out)["shared_storage"]
    # 8 accelerators that take 32 files of 110,000 bytes each 100 ms
    assert plenty["requests_per_s"] == pytest.approx(8 * 320, rel=0.01)
    assert plenty["bytes_per_s"] == pytest.approx(8 * 320 * 110_000, rel=0.01)
    assert ask(monkeypatch, hdd, *question, "--set", "storage.shared_bandwidth=50MB/s") == 0
    told = capsys.readouterr().out
    assert "must deliver 282 MB/s in 2,560 reads a second" in told
    assert "It is the bottleneck from" in told
    assert ask(monkeypatch, hdd, "--set", "loader.workers=4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["shared_storage"] is None


S3 = {"tier": None, "name": "s3://bucket/set", "emulated": False, "remote": True}
"""As `run.json` names a remote place, of which no figures are known."""


def test_a_cluster_is_told_what_it_asks_of_storage_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_run(tmp_path / "run", hdd_plan(), storage=S3))
    assert ask(monkeypatch, run, "--ranks", "8", "--nodes", "8", "--json") == 0
    told = json.loads(capsys.readouterr().out)["shared_storage"]
    assert told["requests_per_s"] == pytest.approx(8 * 320, rel=0.01)
    assert told["bytes_per_s"] == pytest.approx(8 * 320 * 110_000, rel=0.01)
    assert not told["limit_known"] and told["limits_from_nodes"] is None
    assert ask(monkeypatch, run, "--nodes", "8") == 0
    text = capsys.readouterr().out
    assert "must deliver 282 MB/s in 2,560 reads a second" in text
    assert "What it can deliver is not known" in text
    assert "bottleneck" not in text
    assert ask(monkeypatch, run, "--nodes", "8", "--set", "storage.tier=ram", "--json") == 0
    assert json.loads(capsys.readouterr().out)["shared_storage"] is None, "memory is no shared storage"


def test_bytes_that_nobody_counted_are_not_told_as_none(tmp_path: Path) -> None:
    demands = demands_from(load(make_run(tmp_path / "run", hdd_plan(), storage=S3)))
    nothing = np.zeros(len(demands.batches))
    unseen = replace(demands, batches=replace(demands.batches, read_bytes=nothing))
    shared = shared_storage(Predictor(unseen), replace(unseen.measured, nodes=8))
    assert shared is not None and shared.bytes_per_s is None
    text = "".join(forecast.shared_lines(shared, 1))
    assert "must serve 2,560 reads a second; their bytes were not observed" in text


def test_more_readers_are_in_vain_where_the_place_gives_all_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused requests: the terminal says of it what the report says."""
    stages = {"read": 20 * MS, "read:throttled": 300 * MS, "decode": 20 * MS}
    plan = Plan(workers=1, stages=stages, compute=20 * MS, batches=60, spans_every=0)
    machine = {"cpu_count": 2, "usable_cores": 2, "memory_bytes": 16 << 30}
    run = make_run(tmp_path / "run", plan, storage=S3, machine=machine)
    answer = Forecast(pipeprof.load(run))
    assert (answer.verdict.cause, answer.verdict.detail) == ("storage-network", "throttled")
    assert ask(monkeypatch, str(run), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    words = [fix["fix"] for fix in told["fixes"]]
    assert words == [one.fix.word for one in answer.fixes]
    assert words and not {"more-workers", "deeper-prefetch", "more-cores"} & set(words)
    assert told["advice"] == "ram"
    assert [need["amount"] for need in told["what_it_takes"]] == [None, None]
    assert str(VAIN) in told["heat_map"]["extrapolations"][0][0]
    assert ask(monkeypatch, str(run), "--set", "loader.workers=8") == 0
    text = capsys.readouterr().out
    assert text.count("the remote place gave all that it could") == 1


@pytest.mark.slow
def test_without_a_question_everything_is_told(
    hdd: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, hdd) == 0
    told = capsys.readouterr().out
    for part in (
        "hdd-7200",
        "Headroom",
        "Advice",
        "then limited by",
        "the CPU: decode",
        "prefetch 4",
        "[",
        "reads/s",
    ):
        assert part in told
    assert ask(monkeypatch, hdd, "--json", "--target-stall", "0.1") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["target_stall"] == 0.1
    assert data["fixes"][0]["gain"] >= data["fixes"][1]["gain"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("loader.worker=2", "did you mean loader.workers?"),
        ("storage.tier=sdd", "did you mean"),
        ("loader.workers=-1", "workers is -1"),
        ("loader.workers=many", "give a number"),
        ("loader.in_order=perhaps", "give true or false"),
        ("storage.cache_share=2", "a share from 0 to 1"),
        ("machine.cores=0", "must be above 0"),
        ("storage.keep=encodet", "did you mean encoded?"),
        ("loader.workers", "write --set key=value"),
        ("storage.figures.seek=1", "did you mean seek_ns?"),
    ],
)
def test_what_cannot_be_meant_is_told_and_nothing_else(
    hdd: str, setting: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, hdd, "--set", setting) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


@pytest.mark.parametrize("setting", ["storage.tier=ssd", "storage.cache_share=0.5", "storage.access=shards"])
def test_storage_that_was_not_observed_is_refused(
    tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recorded(tmp_path / "run", Plan(stages=CPU_ONLY))
    assert ask(monkeypatch, str(run.directory), "--set", setting) == 3
    assert "no read was observed" in capsys.readouterr().err


def test_one_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recorded(tmp_path / "run", Plan(batches=1, warmup=0))
    assert ask(monkeypatch, str(run.directory)) == 3
    assert "holds 1 batches" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "machine.cores=64"), "this machine has 8"),
        (("--set", "loader.workers=0"), "recorded with workers"),
        (("--set", "loader.workers=16"), "far from what was measured"),
        (("--set", "loader.batch_size=512"), "far from the recorded one"),
        (("--ranks", "4"), "4 ranks were not measured"),
    ],
)
def test_an_extrapolation_says_so(
    hdd: str,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ask(monkeypatch, hdd, *arguments) == 0
    told = capsys.readouterr().out
    assert f"Extrapolated: {told.partition('Extrapolated: ')[2].partition(chr(10))[0]}" in told
    assert said in told


def test_the_further_the_question_the_wider_the_interval(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"decode": 40 * MS}, compute=MS, batches=60)
    demands = demands_of(tmp_path / "run", plan, machine={"cpu_count": 16, "usable_cores": 16})
    near, between, far = (width(demands, replace(demands.measured, workers=w)) for w in (1, 3, 8))
    assert near < between < far


def test_a_device_that_sets_the_pace_is_predicted_more_closely_than_work(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", hdd_plan(), HDD)
    bound_by_work, bound_by_the_arm = (width(demands, replace(demands.measured, workers=w)) for w in (1, 8))
    assert bound_by_the_arm < 0.5 * bound_by_work


def width(demands: Demands, knobs: Knobs) -> float:
    """Of the throughput's interval, relative."""
    found = predict(demands, knobs).throughput
    return (found.high - found.low) / found.value


def test_units_of_a_bandwidth() -> None:
    for text, bytes_per_s in (("20GB/s", 20e9), ("500MB/s", 5e8), ("1GiB/s", 2.0**30), ("1e6", 1e6)):
        asked = change(Knobs(storage=HDD), {"storage.bandwidth": text})
        assert asked.storage.bandwidth_bytes_per_s == bytes_per_s
    with pytest.raises(ScenarioError):
        change(Knobs(storage=HDD), {"storage.bandwidth": "fast"})


def test_arguments_of_dataloader_are_knobs_too() -> None:
    asked = change(Knobs(), {"num_workers": "3", "loader.prefetch_factor": "5", "loader.pin_memory": "true"})
    assert (asked.workers, asked.prefetch, asked.pin_memory) == (3, 5, True)


def test_a_step_time_is_asked_in_milliseconds() -> None:
    assert change(Knobs(), {"accelerator.step_ms": "5"}, step_ns=20e6).accelerator_speed == 4
    with pytest.raises(ScenarioError, match="no step time"):
        change(Knobs(), {"accelerator.step_ms": "5"})


def test_neighbours_are_found_by_what_they_took(tmp_path: Path) -> None:
    """Workers that had half of their two cores: as many others were runnable all the time."""
    plan = Plan(workers=2, stages={"decode": 40 * MS}, compute=MS, batches=100, transfer=0, main=0)
    demands = demands_of(tmp_path / "run", plan)
    measured = replace(demands.measured, cores=2.0)
    host = replace(demands.host, core_waiting=0.5)
    crowded = with_neighbours(replace(demands, measured=measured, host=host))
    assert crowded.measured.neighbours == pytest.approx(2.0, rel=0.05)
    assert replay(crowded).throughput.value == pytest.approx(2 * 32 / 0.08, rel=0.05)
    host = replace(demands.host, core_waiting=0.0)
    quiet = with_neighbours(replace(demands, measured=measured, host=host))
    assert quiet.measured.neighbours == 0


def test_neighbours_are_no_more_than_others_were_seen_to_use(tmp_path: Path) -> None:
    """A worker that sleeps on a disk also waits a little for a core each time that it wakes."""
    plan = Plan(workers=2, stages={"decode": 40 * MS}, compute=MS, batches=100, transfer=0, main=0)
    demands = demands_of(tmp_path / "run", plan)
    host = replace(demands.host, core_waiting=0.5, own_cores=1.0)
    waited = replace(demands, measured=replace(demands.measured, cores=2.0))
    alone = with_neighbours(replace(waited, host=replace(host, other_cores=0.0)))
    assert alone.measured.neighbours == pytest.approx(0, abs=1e-6)
    shared = with_neighbours(replace(waited, host=replace(host, other_cores=1.0)))
    # n beside 1 / (1 - 0.5) runnable tasks of ours get half of two cores: n = 2
    assert shared.measured.neighbours == pytest.approx(2.0, rel=0.05)


def test_storage_without_figures_keeps_its_reads_until_another_is_asked_for(tmp_path: Path) -> None:
    """A wrapper's run: its reads were seen, and nobody knows what they were read from."""
    stages = {"read": 60 * MS, "decode": 20 * MS}
    plan = Plan(workers=1, stages=stages, compute=MS, batches=60, transfer=0, main=0, accelerator="none")
    run = load(make_run(tmp_path / "run", plan, storage=None))
    demands = demands_from(run)
    rates = [
        predict(demands, replace(demands.measured, storage=storage)).throughput.value
        for storage in (demands.measured.storage, STORAGE["nvme-gen3"], STORAGE["ram"])
    ]
    assert rates[0] == pytest.approx(32 / 0.080, rel=0.03)
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] == pytest.approx(32 / 0.020, rel=0.05)
    assert any("bytes in RAM" in fix.title for fix in catalogue(demands))


def test_what_is_no_device_profile_is_refused(
    hdd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text("{}")
    assert ask(monkeypatch, hdd, "--set", f"storage.profile={tmp_path / 'p.json'}") == 2
    assert "is not a device profile" in capsys.readouterr().err
    for damaged in ('{"schema": 1, "tiers": 3}', '{"schema": 1, "tiers": ["/data"]}'):
        (tmp_path / "p.json").write_text(damaged)
        assert ask(monkeypatch, hdd, "--set", f"storage.profile={tmp_path / 'p.json'}") == 2
        assert "the device profile is damaged" in capsys.readouterr().err


def device(path: str, reads_per_s: float) -> dict[str, Any]:
    """One place of a profile, whose small reads come one after the other."""
    point = {"size_bytes": 4096, "queue_depth": 1, "reads_per_s": reads_per_s}
    latency = {"latency_p50_ns": 1e9 / reads_per_s, "latency_p99_ns": 1e9 / reads_per_s}
    return {"path": path, "tier": "ssd", "random": [point | latency], "sequential": {"bytes_per_s": 5e8}}


def test_a_device_of_a_profile_is_asked_about_by_its_path(
    hdd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = [device("/slow", 50), device("/fast", 50_000), {"path": "/unread", "tier": "ssd"}]
    profile = tmp_path / "p.json"
    profile.write_text(json.dumps({"schema": 1, "tiers": tiers}))
    rates = {}
    for place in ("/slow", "/fast"):
        chosen = ("--set", f"storage.device={place}", "--set", f"storage.profile={profile}")
        assert ask(monkeypatch, hdd, *chosen, "--json") == 0
        found = json.loads(capsys.readouterr().out)["prediction"]
        rates[place] = found["throughput_samples_per_s"]["value"]
    assert rates["/slow"] < 50
    assert rates["/fast"] == pytest.approx(32 / 0.224, rel=0.1), "as fast as one worker decodes"
    assert ask(monkeypatch, hdd, "--set", f"storage.profile={profile}") == 2
    assert "measured 2 places: /slow, /fast" in capsys.readouterr().err
    wrong = ("--set", f"storage.profile={profile}", "--set", "storage.device=/fats")
    assert ask(monkeypatch, hdd, *wrong) == 2
    assert "did you mean /fast?" in capsys.readouterr().err
    profile.write_text(json.dumps({"schema": 1, "tiers": tiers[1:]}))
    assert ask(monkeypatch, hdd, "--set", f"storage.profile={profile}", "--json") == 0, (
        "the only one is meant"
    )
    alone = json.loads(capsys.readouterr().out)["prediction"]["throughput_samples_per_s"]["value"]
    assert alone == rates["/fast"]


def test_a_run_whose_own_prediction_fails_is_refused(
    stalled_forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens, and so is not refused before it is asked."""

    def refuses(predictor: Predictor) -> None:
        raise InconclusiveError("it cannot say")

    asked = Forecast(stalled_forecast.analysis)
    monkeypatch.setattr(Predictor, "base", refuses)
    with pytest.raises(InconclusiveError, match="it cannot say"):
        questions.overview(asked, 0.05)
    with pytest.raises(InconclusiveError, match="it cannot say"):
        questions.answer(asked, asked.predictor.demands.measured)
