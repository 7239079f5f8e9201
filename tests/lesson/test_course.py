"""The course: its rungs, taking it up again, and a short one really climbed, with its order checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.cli import cli
from pipeprof.lesson.course import claim_of, course
from pipeprof.lesson.measurements import ScenarioRun, lesson_directory
from pipeprof.lesson.results import LessonRun, read
from pipeprof.scenario import Scenario
from tests.factory import Plan, S, make_run
from tests.lesson.made import make_lesson
from tests.timing import Timing

LADDER = (
    "5_ladder-tier=hdd",
    "5_ladder-tier=ssd",
    "5_ladder-tier=nvme",
    "5_ladder-tier=ram",
    "5_ladder_pinned",
)


def scenarios(quick: bool) -> dict[str, ScenarioRun]:
    return {rung.name: rung for rung in course(quick) if isinstance(rung, ScenarioRun)}


def test_the_rungs_come_in_the_order_of_the_claims() -> None:
    for quick in (True, False):
        numbers = [claim_of(rung.name) for rung in course(quick)]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(1, 11))


def test_every_scenario_of_the_lesson_is_in_the_course_and_expects_something() -> None:
    files = {path.stem for path in lesson_directory().glob("*.yaml")}
    rungs = scenarios(quick=False)
    assert files == {rung.file.stem for rung in rungs.values()}
    for rung in rungs.values():
        assert rung.scenario.expect is not None
        assert rung.scenario.expect.model_fields_set - {"cells"} or rung.scenario.cell, rung.name
        assert rung.scenario.about


def test_the_quick_course_is_part_of_the_whole_one_and_shorter() -> None:
    quick, whole = scenarios(quick=True), scenarios(quick=False)
    assert set(quick) < set(whole)
    for name, rung in quick.items():
        assert rung.scenario.run.steps is not None
        assert rung.scenario.run.steps <= (whole[name].scenario.run.steps or 0)
        assert rung.scenario.loader == whole[name].scenario.loader


def test_the_tiers_are_compared_before_one_accelerator() -> None:
    rungs = [rung for name, rung in scenarios(quick=False).items() if claim_of(name) in (1, 2, 3, 4)]
    assert len({str(rung.scenario.accelerator) for rung in rungs}) == 1
    assert len({rung.scenario.loader.batch_size for rung in rungs}) == 1


def test_only_the_claims_that_are_asked_for() -> None:
    assert {claim_of(rung.name) for rung in course(True, claims=[2, 7])} == {2, 7}


def first(quick: bool = True) -> ScenarioRun:
    return scenarios(quick)["1_hdd"]


def test_a_run_of_this_scenario_is_done_and_one_of_another_is_not(tmp_path: Path) -> None:
    assert not first().done(tmp_path)
    make_run(tmp_path / "1_hdd", scenario={"resolved": first().scenario.resolved()})
    assert first().done(tmp_path)
    assert not first(quick=False).done(tmp_path)


def test_a_run_by_a_pipeprof_that_knew_fewer_keys_is_done(tmp_path: Path) -> None:
    resolved = first().scenario.resolved()
    del resolved["run"]["telemetry_hz"]
    make_run(tmp_path / "1_hdd", scenario={"resolved": resolved})
    assert first().done(tmp_path)


def test_a_torn_run_is_not_done(tmp_path: Path) -> None:
    resolved = {"resolved": first().scenario.resolved()}
    make_run(tmp_path / "1_hdd", Plan(status="interrupted"), scenario=resolved)
    assert not first().done(tmp_path)
    (tmp_path / "1_hdd" / "run.json").write_text("{")
    assert not first().done(tmp_path)


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    make_lesson(tmp_path / "out", only=("1_", "2_"))
    told = invoke("--quick", "--out", str(tmp_path / "out"), "--claim", "1", "--claim", "2")
    assert told.exit_code == 0, told.output
    assert told.output.count("already measured") == 3
    assert (tmp_path / "out" / "index.html").stat().st_size > 10_000


def invoke(*arguments: str) -> object:
    return CliRunner().invoke(cli, ["lesson", *arguments], catch_exceptions=True)


def test_another_course_in_the_same_place_is_refused(tmp_path: Path) -> None:
    make_lesson(tmp_path / "out", only=("1_",))
    before = sorted(tmp_path.rglob("*"))
    told = invoke("--out", str(tmp_path / "out"))
    assert "holds the quick course" in str(told.exception)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_is_no_lesson_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    told = invoke("--quick", "--out", str(tmp_path))
    assert "is not a lesson" in str(told.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_fails_is_noted_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeprof.errors import DataError

    def run(scenario: Scenario, out: Path, **_: object) -> None:
        if scenario.name == "2_ssd":
            raise DataError("no room", "make some")
        slow = Plan(workers=0, stages={"read": S})
        make_run(out, slow, scenario={"resolved": scenario.resolved()})

    monkeypatch.setattr("pipeprof.measure.bench.run.run", run)
    told = invoke("--quick", "--out", str(tmp_path / "out"), "--claim", "2")
    assert told.exit_code == 2
    assert set(read(tmp_path / "out").runs) == {"2_nvme"}
    held = json.loads((tmp_path / "out" / "lesson.json").read_text())
    assert held["errors"] == {"2_ssd": "no room\nmake some"}
    assert "2_nvme" in held["missed"]  # the made run is not as the scenario expects, and says so


def test_an_interruption_keeps_what_is_there_and_builds_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(scenario: Scenario, out: Path, **_: object) -> None:
        status = "interrupted" if scenario.name == "2_nvme" else "complete"
        make_run(out, Plan(status=status), scenario={"resolved": scenario.resolved()})

    monkeypatch.setattr("pipeprof.measure.bench.run.run", run)
    told = invoke("--quick", "--out", str(tmp_path / "out"), "--claim", "2")
    assert told.exit_code == 130
    assert (tmp_path / "out" / "index.html").exists()
    assert "goes on from here" in told.output


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_the_rungs_hold_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timing: Timing) -> None:
    """The quick course of claims 1, 2, 4 and 5, really run: with few steps, the ladder with more."""
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    runs: dict[str, LessonRun] = {}
    for claims, steps in (((1, 2, 4), 12), ((5,), 60)):
        shorter = (f"run.steps={steps}", "run.warmup_steps=5", "data.samples=64")  # past the first prefetched
        sets = [word for one in shorter for word in ("--set", one)]
        wanted = [word for claim in claims for word in ("--claim", str(claim))]
        out = tmp_path / f"out-{steps}"
        told = invoke("--quick", "--out", str(out), *wanted, *sets)
        assert told.exit_code == 0, told.output
        runs |= read(out).runs
    stall = {name: rung.stall or 0.0 for name, rung in runs.items()}
    rate = {name: rung.rate or 0.0 for name, rung in runs.items()}
    for tier in ("ssd", "hdd"):
        assert len([name for name in stall if name.startswith(f"4_workers-tier={tier},")]) == 4
    *disks, files, pinned = (stall[name] for name in LADDER)
    # that workers help where the disk does not limit is seen in the whole course: 12 steps are too few for it
    disk = [rate[f"4_workers-tier=hdd,workers={count},prefetch=4"] for count in (1, 4)]
    with timing.compared():
        assert stall["1_hdd"] > stall["2_ssd"] + 0.1
        assert disks == sorted(disks, reverse=True), disks
        # not beside each other: making a batch of 19 MB takes 5 to 14 ms here, and the device 6.6 for one, so
        # that runs waited 0.52 to 0.64 (files in RAM) and 0.05 to 0.58 (ready and pinned)
        assert max(files, pinned) < disks[-1], (files, pinned, disks)
        assert disk[1] < 2 * disk[0], "one arm serves one read at a time"
    shutil.rmtree(tmp_path / "cache")
