"""Tuning of a script, with trials from the factory in place of processes, and once for real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.cli import cli
from pipeprof.errors import InconclusiveError, MeasureError, PipeprofError
from pipeprof.record.reader import Run
from pipeprof.simulate.tuning import script as tuning
from pipeprof.simulate.tuning.processes import Script, memory_of_session, trace_once
from pipeprof.simulate.tuning.script import TunedScript, conclusion, result_as_dict, tune_script
from tests.factory import MS, Plan
from tests.simulate.common import recorded

SOURCE = "train_loader = DataLoader(data, num_workers=1)\n"


class Processes:
    """Stand-in for fresh processes: runs of a plan, whose workers share nothing."""

    def __init__(self, source: Path, plan: Plan, too_many: int = 1000) -> None:
        self.source, self.plan, self.too_many = source, plan, too_many
        self.asked: list[tuple[str, ...]] = []

    def trace_once(
        self,
        script: Script,
        settings: Sequence[str],
        seconds: float,
        out: Path,
        warmup: int,
        most: int | None,
    ) -> Run:
        self.asked.append(tuple(settings))
        values = dict(each.partition(".")[2].split("=") for each in settings)
        workers = int(values.get("num_workers", self.plan.workers))
        prefetch = int(values.get("prefetch_factor", self.plan.prefetch))
        if workers > self.too_many:
            raise MeasureError("it takes 9 GB of memory, more than 8 GB")
        loader = {
            "id": 0, "name": "train_loader", "workers": workers, "prefetch": prefetch, "in_order": True,
            "pin_memory": False, "batch_size": 32, "samples": 10**6, "file": str(self.source), "line": 1,
            "column": 15, "in_library": False,
        }  # fmt: skip
        return recorded(out, replace(self.plan, workers=workers, prefetch=prefetch), loaders=[loader])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SOURCE)
    return path


def tuned(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **options: Any
) -> TunedScript:
    monkeypatch.setattr(tuning, "trace_once", processes.trace_once)
    script = Script("train.py", ("--lr", "0.1"))
    return tune_script(script, 1000.0, tmp_path / "runs", **options)


def test_the_best_setting_its_gain_and_the_change_to_make(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = Plan(workers=1, batches=200, stages={"decode": 100 * MS}, compute=30 * MS)
    processes = Processes(source, plan)
    result = tuned(processes, monkeypatch, tmp_path, keep_order=True)
    assert (result.tuned.best.workers, result.present.workers, result.stays) == (4, 1, False)
    assert processes.asked[0] == (), "first the script as it is"
    assert processes.asked[-1] == (), "and in the end once more"
    assert result.gain is not None and result.gain.low is not None
    assert result.gain.low <= 100 / 30 <= (result.gain.high or 0), "the interval holds what is there"
    assert "+train_loader = DataLoader(data, num_workers=4)" in result.edit.diff
    assert result.command == "pipeprof trace --set loader.num_workers=4 train.py --lr 0.1"
    assert source.read_text() == SOURCE
    told = json.loads(json.dumps(result_as_dict(result, tmp_path)))
    assert (told["stay"], told["best"]["num_workers"], told["loader"]["line"]) == (False, 4, 1)


def test_what_the_cores_explain_widens_the_interval(tmp_path: Path) -> None:
    """The second run is 30% faster, and so were the cores: that is no gain."""

    def run(decode: int, spin_ns: float) -> Analysis:
        plan = Plan(batches=200, stages={"decode": decode * MS})
        found = analyse(recorded(tmp_path / f"{decode}-{spin_ns:g}", plan))
        assert found.facts is not None
        return replace(found, facts=replace(found.facts, spin_ns=spin_ns))

    before, after = run(130, 1.3e6), run(100, 1e6)
    gain, alike = tuning._gain([before], after), tuning._gain([before], run(100, 1.3e6))
    assert gain.value == pytest.approx(1.3, rel=0.01)
    assert alike.is_real and not alike.cores
    assert gain.cores.startswith("the cores were 30% faster") and not gain.is_real


def test_a_large_gain_is_real_though_few_steps_were_measured(tmp_path: Path) -> None:
    """A remote store answers in a fifth of a second: a trial holds a dozen batches."""

    def run(decode: int, batches: int) -> Analysis:
        plan = Plan(workers=1, batches=batches, warmup=5, stages={"decode": decode * MS}, jitter=0.05)
        return analyse(recorded(tmp_path / str(batches), plan))

    gain = tuning._gain([run(1000, 8), run(1000, 17)], run(125, 60))
    assert gain.low is not None and gain.is_real and gain.low < 8 < (gain.high or 0)
    assert not tuning._gain([run(1000, 7)], run(125, 59)).is_real, "two measured steps say nothing"


@pytest.mark.parametrize("batches", [5, 8], ids=["none is measured", "few are"])
def test_a_script_whose_batches_are_long_is_told_the_budget_that_is_enough(
    batches: int, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = Plan(workers=1, batches=batches, stages={"decode": 2000 * MS}, compute=30 * MS, warmup=5)
    with pytest.raises(InconclusiveError, match=rf"{batches} batches .*, one each 2.00 s: too few") as error:
        tuned(Processes(source, plan), monkeypatch, tmp_path)
    assert error.value.remedy == "give it --budget 188 or more", "15 batches in a fifth of 80 %"


def test_a_healthy_script_stays_as_it_is(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = Plan(workers=2, batches=200, stages={"decode": 10 * MS}, compute=30 * MS)
    result = tuned(Processes(source, plan), monkeypatch, tmp_path)
    assert result.stays
    assert conclusion(result)[-1].startswith("Stay as it is (2 workers, prefetch 2)")


def test_a_budget_that_was_too_small_is_told(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = Plan(workers=2, batches=200, stages={"decode": 10 * MS}, compute=30 * MS)
    result = tuned(Processes(source, plan), monkeypatch, tmp_path)
    unknown = replace(result, gain=None, tuned=replace(result.tuned, agreed=False))
    assert conclusion(unknown)[-1].endswith("give a larger --budget.")
    assert "Stay" not in " ".join(conclusion(unknown))
    assert result_as_dict(unknown, tmp_path)["stay"] is None and result_as_dict(result, tmp_path)["stay"]


def test_what_takes_too_much_memory_is_left_out(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = Plan(workers=1, batches=200, stages={"decode": 100 * MS}, compute=30 * MS)
    result = tuned(Processes(source, plan, too_many=3), monkeypatch, tmp_path, keep_order=True)
    assert result.tuned.best.workers <= 3
    assert "more than 8 GB" in result.tuned.failed[0].why
    assert any(line.startswith("Could not be measured: 4 workers") for line in conclusion(result))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "loader.worker=2", "train.py"], "did you mean"),
        (["missing.py"], "there is no script missing.py"),
        (["--write", "x.yaml", "train.py"], "--write is for scenarios"),
        (["some.yaml", "--lr", "0.1"], "No such option"),
        (["--keep-order", "some.yaml"], "--keep-order does not apply to a scenario"),
        (["--try", "cached", "some.yaml"], "--try does not apply to a scenario"),
        (["--try", "cashed", "train.py"], "did you mean cached"),
        (["--budget", "1s", "train.py"], "give 90, 5m or 1h"),
        (["--max-memory", "much", "train.py"], "give 8GB"),
    ],
)
def test_what_cannot_be_tuned(
    words: list[str], said: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    with pytest.raises(Exception, match=said) as raised:
        cli(["tune", *words], standalone_mode=False)
    assert raised.value.exit_code == 2  # type: ignore[attr-defined]
    assert [path.name for path in source.parent.iterdir()] == ["train.py"]


def test_options_after_a_script_are_the_scripts(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.chdir(source.parent)
    monkeypatch.setattr("pipeprof.cli.measure.tune._tune_script", lambda *given: asked.append(given))
    cli(["tune", "--budget", "2m", "train.py", "--budget", "7", "-m"], standalone_mode=False)
    assert asked[0][:2] == (Script("train.py", ("--budget", "7", "-m")), 120.0)


def test_a_fix_is_tried_in_each_trial() -> None:
    script = Script("train.py", ("--lr", "1"), tries=("cached",))
    words = ["--quiet", "--set", "loader.num_workers=2", "--try", "cached", "train.py", "--lr", "1"]
    assert script.words(["loader.num_workers=2"], ["--quiet"]) == words


FAILS = "import sys\nprint('nothing to train on')\nsys.exit(3)\n"
SLOW = """
import time
from torch.utils.data import DataLoader

class Slow:
    def __len__(self):
        return 10**5
    def __getitem__(self, index):
        time.sleep(0.004)
        return index

if __name__ == "__main__":
    loader = DataLoader(Slow(), batch_size=4, num_workers=1)
    for batch in loader:
        time.sleep(0.004)
"""


@pytest.mark.heavy
def test_a_script_that_fails_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "fails.py"
    path.write_text(FAILS)
    with pytest.raises(PipeprofError, match="the script failed: nothing to train on"):
        trace_once(Script(str(path)), (), 1.0, tmp_path / "run", 0)


@pytest.mark.heavy
def test_a_script_is_tuned(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    result = tune_script(Script(str(path)), 60.0, tmp_path / "runs")
    assert not result.stays and result.tuned.best.workers >= 3, "16 ms a batch beside steps of 4 ms"
    assert "+    loader = DataLoader(Slow(), batch_size=4, num_workers=" in result.edit.diff
    assert path.read_text() == SLOW


def test_memory_of_a_session_counts_its_processes_alone() -> None:
    assert memory_of_session(2**30) == 0
