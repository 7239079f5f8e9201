"""Every shipped scenario teaches what it says: each is run, short and emulated, and its `expect` is checked.

Short means smaller batches before an accelerator as fast for each sample, and fewer steps: what waits for
what stays as it is. Where other programs had the cores, or the cores are too slow for the accelerator's pace,
a run is made again; in the end its shares of time are excused, its words never.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.analysis import load as load_analysis
from pipeprof.analyse.differences import MAKING_CPU, figures
from pipeprof.scenario import ExpectPart, Scenario, load, with_values
from pipeprof.scenario.expectation import misses
from tests.factory import MS
from tests.timing import OtherPrograms, Timing

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"
FILES = sorted(SCENARIOS.glob("*.yaml"))
CELLS = {scenario.name: scenario for path in FILES for scenario in load(path)}
LADDER = ("hdd_0workers", "hdd_4workers", "ssd_4workers", "ram_4workers", "pinned_4workers")
STEPS, WARMUP_STEPS = 30, 5
SLOW_BATCH, FAST_BATCH = 8, 16
"""Samples a batch where storage sets the pace, and where it does not: there a step must outlast a batch's
own cost."""


def short(scenario: Scenario) -> Scenario:
    """The scenario with fewer steps, each of fewer samples, and what it expects unchanged."""
    before = scenario.loader.batch_size
    waits = scenario.storage.tier in ("hdd", "network")
    batch = min(before, SLOW_BATCH if waits else FAST_BATCH)
    values: dict[str, Any] = {
        "loader.batch_size": batch,
        "run.steps": STEPS * _times_longer(scenario),
        "run.warmup_steps": WARMUP_STEPS,
        "data.samples": min(512, scenario.data.samples),
    }
    for key in ("step_ms", "step_spread_ms"):
        if value := getattr(scenario.accelerator, key):
            values[f"accelerator.{key}"] = value * batch / before
    return with_values(scenario, values).model_copy(update={"expect": scenario.expect})


def _times_longer(scenario: Scenario) -> int:
    """How many times more steps it takes: without workers the stall lies near a band's edge, where few leave
    the verdict open; and a cause is named from 2 s on, which steps that wait for a disk have in any case."""
    if scenario.storage.tier == "hdd":
        return 1
    if scenario.storage.tier != "network" and not scenario.loader.workers:
        return 5
    return 3 if scenario.expect is not None and scenario.expect.cause else 1


class Measured(NamedTuple):
    """A run's answer, and the cores that other programs had meanwhile."""

    answer: dict[str, Any]
    taken_cores: float
    needed_share: float
    """Share of the cores that batches at the accelerator's pace ask for; 0 where it is no time of a step."""


def needed_share(scenario: Scenario, analysis: Analysis) -> float:
    step_ms = scenario.accelerator.step_ms
    making_ns = figures(analysis)[MAKING_CPU.key].value
    if step_ms is None or making_ns is None:
        return 0.0
    cores = min(max(1, scenario.loader.workers), analysis.run.meta.machine.usable_cores or 1)
    return making_ns / (step_ms * MS * cores)


class Runs:
    """Each shipped scenario, run once for all tests, and again where it is asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs: dict[str, Measured] = {}

    def measure(self, name: str) -> Measured:
        from pipeprof.measure.bench.run import run
        from pipeprof.simulate.forecast import Forecast

        others = OtherPrograms()
        with tempfile.TemporaryDirectory(dir=self.directory) as out, pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIPEPROF_CACHE", str(self.directory / "cache"))
            scenario = short(CELLS[name])
            analysis = load_analysis(run(scenario, Path(out) / name))
            answer = Forecast(analysis).verdict.as_dict()
        self.runs[name] = Measured(answer, others.cores(), needed_share(scenario, analysis))
        return self.runs[name]

    def measured(self, name: str) -> Measured:
        return self.runs.get(name) or self.measure(name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("shipped"))


def words(expect: ExpectPart) -> ExpectPart:
    """What is expected but for shares of time."""
    return expect.model_copy(update={"band": None, "min_stall": None, "max_stall": None})


AT_AN_EDGE = "ssd_0workers"
"""Its stall lies at the edge of a band: shortened, it is inconclusive now and then. By hand."""


def marked(name: str) -> Any:
    """The cells of a matrix take minutes together."""
    by_hand = "," in name or name == AT_AN_EDGE
    return pytest.param(name, marks=pytest.mark.heavy if by_hand else pytest.mark.slow)


@pytest.mark.timeout(240)  # twice, on a busy machine
@pytest.mark.parametrize("name", [marked(name) for name in CELLS])
def test_it_comes_to_what_it_teaches(runs: Runs, timing: Timing, name: str) -> None:
    expect = CELLS[name].expect
    assert expect is not None

    def attempt(_: int) -> None:
        answer, taken_cores, needed = runs.measure(name)
        assert answer["status"] == "complete"
        missed = misses(words(expect), answer)
        if missed and timing.explains(answer["verdict"]["cause"], answer["verdict"]["detail"], taken_cores):
            return
        assert missed == []
        with timing.compared(taken_cores):
            assert misses(expect.model_copy(update={"max_stall": None}), answer) == []
        with timing.compared(taken_cores, needed):
            assert misses(expect, answer) == []

    timing.attempts(attempt)


@pytest.mark.slow
def test_each_rung_of_the_ladder_waits_no_longer_than_the_one_before(runs: Runs, timing: Timing) -> None:
    measured = [runs.measured(name) for name in LADDER]
    taken_cores = max(run.taken_cores for run in measured)
    stalls = [run.answer["verdict"]["stall_share"] for run in measured]
    assert None not in stalls
    noise = 0.02  # repeats on a machine at rest differ by 0.004
    for rung, (before, after) in enumerate(itertools.pairwise(measured)):
        intervals = [run.answer["verdict"]["stall_interval"] for run in (before, after)]
        with timing.compared(taken_cores, after.needed_share):
            assert stalls[rung + 1] <= stalls[rung] + noise or intervals[1][0] <= intervals[0][1], stalls
            if rung < 2:  # from one disk to the next it waits less, without a doubt
                assert stalls[rung + 1] + noise < stalls[rung], stalls


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_says_what_it_teaches(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=./schema.json"
    assert (path.parent / "schema.json").is_file()
    assert len([line for line in lines if line.startswith("# ")]) >= 3
    for scenario in load(path):
        assert scenario.name.startswith(path.stem)
        assert scenario.about
        assert scenario.expect is not None


def test_the_ladder_changes_nothing_but_storage_and_workers() -> None:
    rungs = [CELLS[name] for name in (*LADDER, "ssd_0workers", "nvme_4workers")]
    for part in ("data", "accelerator", "model", "run"):
        assert len({str(getattr(rung, part)) for rung in rungs}) == 1, part


def test_each_run_ends_within_a_minute() -> None:
    for scenario in CELLS.values():
        assert scenario.run.seconds is not None
        assert scenario.run.seconds <= 45, scenario.name
