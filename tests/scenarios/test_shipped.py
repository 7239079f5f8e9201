"""Every shipped scenario teaches what it says: each is run, short and emulated, and its `expect` is checked.

Short means smaller batches before an accelerator as fast for each sample, and fewer steps: what waits for
what stays as it is. Where other programs took the cores meanwhile, as the system's own counters tell, a run
shows nothing of its scenario and is skipped.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from pipeprof.cli.expectation import misses
from pipeprof.scenario import Scenario, load, with_values
from tests.others import BUSY_CORES, Others

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
        # without workers the stall lies near a band's edge, where few steps leave the verdict open
        "run.steps": STEPS if waits or scenario.loader.workers else 3 * STEPS,
        "run.warmup_steps": WARMUP_STEPS,
        "data.samples": min(512, scenario.data.samples),
    }
    for key in ("step_ms", "step_spread_ms"):
        if value := getattr(scenario.accelerator, key):
            values[f"accelerator.{key}"] = value * batch / before
    return with_values(scenario, values).model_copy(update={"expect": scenario.expect})


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answer of a shipped scenario, run once: `measured(name)`."""
    from pipeprof.measure.run import run
    from pipeprof.simulate.answer import load as answer_of

    answers: dict[str, tuple[dict[str, Any], float]] = {}
    parent = tmp_path_factory.mktemp("shipped")

    def _measured(name: str) -> dict[str, Any]:
        if name not in answers:
            others = Others()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PIPEPROF_CACHE", str(parent / "cache"))
                answer = answer_of(run(short(CELLS[name]), parent / name)).as_dict()
            answers[name] = answer, others.cores()
        answer, taken = answers[name]
        if taken > BUSY_CORES:
            pytest.skip(f"other programs kept {taken:.1f} cores busy meanwhile")
        return answer

    return _measured


def marked(name: str) -> Any:
    """The cells of a matrix take minutes together."""
    return pytest.param(name, marks=pytest.mark.heavy if "," in name else pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in CELLS])
def test_it_comes_to_what_it_teaches(measured: Any, name: str) -> None:
    expect = CELLS[name].expect
    assert expect is not None
    answer = measured(name)
    assert answer["status"] == "complete"
    assert misses(expect, answer) == []


@pytest.mark.slow
def test_each_rung_of_the_ladder_waits_no_longer_than_the_one_before(measured: Any) -> None:
    stalls = [measured(name)["verdict"]["stall_share"] for name in LADDER]
    noise = 0.05
    assert all(after <= before + noise for before, after in itertools.pairwise(stalls)), stalls
    assert stalls[0] > stalls[1] + noise > stalls[2] + 2 * noise, stalls


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
