from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import pipeprof
from pipeprof.errors import InconclusiveError, MeasureError
from pipeprof.measure.data.generate import SET_JSON
from pipeprof.record.reader import Run
from pipeprof.scenario import Scenario, load
from pipeprof.scenario.dump import to_yaml
from pipeprof.simulate.tuning.trials import Failed, Setting, Trial, as_dict, conclusion, line
from pipeprof.simulate.tuning.tune import search, tune_scenario
from tests.factory import MS, Plan
from tests.simulate.common import recorded


class Bench:
    """Measures settings with the factory, whose workers share nothing; each run takes its seconds."""

    def __init__(self, room: Path, plan: Plan, run_s: float | None = None) -> None:
        self.room, self.plan, self.run_s = room, plan, run_s
        self.now = 0.0
        self.asked: list[Setting] = []

    def clock(self) -> float:
        return self.now

    def measure(self, setting: Setting, seconds: float) -> Run:
        self.asked.append(setting)
        self.now += self.run_s or seconds
        plan = replace(self.plan, workers=setting.workers, prefetch=setting.prefetch)
        return recorded(self.room / str(len(self.asked)), plan)


def test_it_stops_where_predicted_and_measured_agree(tmp_path: Path) -> None:
    plan = Plan(workers=1, batches=200, stages={"decode": 100 * MS}, compute=30 * MS)
    bench = Bench(tmp_path, plan)
    tuned = search(bench.measure, Setting(1), 1000.0, bench.clock)
    assert tuned.agreed
    assert tuned.best.workers == 4, "four workers of 100 ms keep up with 30 ms, and three do not"
    assert len(tuned.trials) <= 4
    assert tuned.throughput == pytest.approx(32 / 0.030, rel=0.03)
    assert tuned.trials[0].predicted is None
    last = tuned.trials[-1]
    assert last.predicted is not None
    assert last.predicted.value == pytest.approx(last.measured, rel=0.03)


def test_of_equal_settings_the_one_with_the_fewest_workers_is_taken(tmp_path: Path) -> None:
    plan = Plan(workers=8, batches=200, stages={"decode": 20 * MS}, compute=30 * MS)
    bench = Bench(tmp_path, plan)
    assert search(bench.measure, Setting(8), 1000.0, bench.clock).best.workers == 0, (
        "the loop makes the next batch while the accelerator computes"
    )


def test_the_budget_ends_the_search(tmp_path: Path) -> None:
    plan = Plan(workers=1, batches=60, stages={"decode": 100 * MS}, compute=30 * MS)
    bench = Bench(tmp_path, plan, run_s=40.0)
    tuned = search(bench.measure, Setting(1), 60.0, bench.clock)
    assert not tuned.agreed
    assert bench.asked == [Setting(1)]
    assert tuned.best == Setting(1), "what was not measured is no answer"


@pytest.mark.parametrize(("reserve_s", "workers"), [(0.0, 1), (20.0, 4)])
def test_a_setting_that_promises_much_gets_what_was_kept_for_later(
    tmp_path: Path, reserve_s: float, workers: int
) -> None:
    """Each trial takes 25 s to start, beside the 12 s that it is given."""
    plan = Plan(workers=1, batches=200, stages={"decode": 100 * MS}, compute=30 * MS)

    class Late(Bench):
        def measure(self, setting: Setting, seconds: float) -> Run:
            self.now += 25.0
            return super().measure(setting, seconds)

    bench = Late(tmp_path, plan)
    tuned = search(bench.measure, Setting(1), 60.0, bench.clock, reserve_s=reserve_s)
    assert tuned.best.workers == workers


def test_it_learns_from_a_miss(tmp_path: Path) -> None:
    """More than two workers are as slow as one here (a lock, say): no demand of the first run shows it."""
    plan = Plan(workers=1, batches=200, stages={"decode": 100 * MS}, compute=10 * MS)

    class Locked(Bench):
        def measure(self, setting: Setting, seconds: float) -> Run:
            slow = {"decode": max(1, setting.workers / 2) * 100 * MS}
            self.plan = replace(plan, stages={name: round(ns) for name, ns in slow.items()})
            return super().measure(setting, seconds)

    bench = Locked(tmp_path, plan)
    tuned = search(bench.measure, Setting(1), 10_000.0, bench.clock)
    assert max(one.workers for one in bench.asked) > 2, "it tried what the first run promised"
    assert tuned.throughput == pytest.approx(2 * 32 / 0.1, rel=0.1), "and found what is there"


def test_a_run_too_short_to_say_anything_ends_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Plan(batches=7, warmup=5))
    with pytest.raises(InconclusiveError, match="2 batches after warm-up"):
        search(bench.measure, Setting(2), 60.0, bench.clock)


def test_long_steps_get_fewer_and_longer_trials(tmp_path: Path) -> None:
    class Slow(Bench):
        def measure(self, setting: Setting, seconds: float) -> Run:
            self.plan = replace(self.plan, batches=round(seconds))
            return super().measure(setting, seconds)

    bench = Slow(tmp_path, Plan(workers=2, batches=0, warmup=5, stages={"decode": MS}, compute=1000 * MS))
    tuned = search(bench.measure, Setting(2), 45.0, bench.clock)
    assert bench.asked[:2] == [Setting(2), Setting(2)], "9 s hold 4 batches after warm-up, 18 s hold 13"
    assert tuned.trials[0].measured == pytest.approx(32, rel=0.05)


@pytest.mark.parametrize("ending", ["an error", "too few batches"])
def test_a_setting_that_cannot_be_measured_is_left_out(tmp_path: Path, ending: str) -> None:
    """More than four workers do not start here, or too late to measure anything."""
    plan = Plan(workers=1, batches=200, stages={"decode": 100 * MS}, compute=10 * MS)

    class Narrow(Bench):
        def measure(self, setting: Setting, seconds: float) -> Run:
            if setting.workers > 4 and ending == "an error":
                self.asked.append(setting)
                raise MeasureError("no room in /dev/shm\nOriginal Traceback", "use fewer workers")
            self.plan = replace(plan, batches=7 if setting.workers > 4 else 200)
            return super().measure(setting, seconds)

    told: list[Trial | Failed] = []
    bench = Narrow(tmp_path, plan)
    tuned = search(bench.measure, Setting(1), 10_000.0, bench.clock, told.append)
    assert tuned.best.workers == 4, "what was measured is kept, and the next best was tried"
    assert tuned.throughput == pytest.approx(4 * 32 / 0.1, rel=0.1)
    asked = [setting.workers for setting in bench.asked[1:]]
    assert asked[0] > asked[1] > 4, "of what failed no more is asked for"
    assert len(set(bench.asked)) == len(bench.asked)
    assert [one for one in told if isinstance(one, Failed)] == list(tuned.failed)
    why = "no room in /dev/shm" if ending == "an error" else "2 batches after warm-up"
    assert why in line(tuned.failed[0]) and "\n" not in line(tuned.failed[0])
    assert f"could not be measured: {asked[0]} workers" in conclusion(tuned)
    assert json.loads(json.dumps(as_dict(tuned, tmp_path)))["failed"][0]["num_workers"] == asked[0]


@pytest.mark.parametrize("budget_s", [12.0, 25.0])
def test_starting_workers_is_part_of_the_budget(tmp_path: Path, budget_s: float) -> None:
    """Each worker takes a second to start, beside what a trial was given; the epoch is long."""
    plan = Plan(workers=1, batches=60, stages={"decode": 100 * MS}, compute=10 * MS)
    loader = {"id": 0, "batch_size": 32, "in_order": True, "pin_memory": False, "samples": 10**6}

    class Late(Bench):
        def measure(self, setting: Setting, seconds: float) -> Run:
            self.asked.append(setting)
            self.now += seconds + setting.workers
            startup_ns = setting.workers * 1000 * MS
            mine = replace(plan, workers=setting.workers, prefetch=setting.prefetch, startup_ns=startup_ns)
            told = {**loader, "workers": setting.workers, "prefetch": setting.prefetch}
            return recorded(self.room / str(len(self.asked)), mine, loaders=[told])

    bench = Late(tmp_path, plan)
    tuned = search(bench.measure, Setting(1), budget_s, bench.clock)
    assert tuned.seconds == bench.now <= budget_s
    assert len(tuned.trials) > 1 or budget_s < 20, "and what is left of it is used"


def test_a_data_set_is_made_before_the_budget_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    made: list[int] = []

    def run(scenario: Scenario, out: Path) -> Path:
        made.append(len(list((tmp_path / "cache").rglob(SET_JSON))))
        raise MeasureError("the clock runs", "")

    monkeypatch.setattr("pipeprof.measure.bench.run.run", run)
    parts = {"data": {"format": "tensor_files", "samples": 64, "sample_bytes": 4000}}
    scenario = Scenario.model_validate({"name": "mine", **parts, "run": {"steps": 9}})
    with pytest.raises(MeasureError, match="the clock runs"):
        tune_scenario(scenario, 60.0, tmp_path / "runs")
    assert made == [1]


def test_a_tuned_scenario_loads_as_what_it_is(tmp_path: Path) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "mine",
            "data": {"samples": 64},
            "loader": {"workers": 3, "prefetch": 4},
            "run": {"steps": 9},
        }
    )
    path = tmp_path / "tuned.yaml"
    path.write_text(to_yaml(scenario, "Tuned.\nBy hand: no."))
    assert path.read_text().startswith("# Tuned.\n# By hand: no.\n")
    assert load(path)[0].resolved() == scenario.resolved()


class Slow(Dataset[Any]):
    """Each sample takes 4 ms in which nobody needs a core."""

    def __len__(self) -> int:
        return 4000

    def __getitem__(self, index: int) -> Any:
        import time

        time.sleep(0.004)
        return torch.full((8,), float(index))


@pytest.mark.heavy
def test_a_users_own_dataset_is_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def step(batch: torch.Tensor) -> None:
        seen.append(len(batch))

    found = pipeprof.tune(Slow(), step, batch_size=8, budget_s=15, workers=1)
    assert found["batch_size"] == 8
    assert found["num_workers"] >= 3, "waiting needs no core: more workers wait at the same time"
    assert set(seen) == {8}
    told = capsys.readouterr().out
    assert "measured" in told
    assert "Best:" in told
    torch.utils.data.DataLoader(Slow(), **found)


class Crowded(Slow):
    """More than four workers are more than there is memory for."""

    def __getitem__(self, index: int) -> Any:
        info = torch.utils.data.get_worker_info()
        if info is not None and info.num_workers > 4:
            raise RuntimeError("no memory left")
        return super().__getitem__(index)


@pytest.mark.slow
def test_a_users_own_dataset_that_breaks_with_more_workers(capsys: pytest.CaptureFixture[str]) -> None:
    found = pipeprof.tune(Crowded(), lambda batch: None, batch_size=8, budget_s=15, workers=1)
    assert found["num_workers"] <= 4
    assert "not measured: the run ended with RuntimeError" in capsys.readouterr().out
