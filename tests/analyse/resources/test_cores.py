"""How much of a difference the speed of the cores explains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.differences import compare
from pipeprof.analyse.gates import check
from pipeprof.analyse.resources.cores import core_speeds
from tests.factory import MS, Plan, make_run


def on_cores(directory: Path, decode: int, spin_ns: float | None) -> Analysis:
    """A run that one worker's decoding limits, whose cores took so long for the fixed piece of work."""
    found = load(make_run(directory, Plan(batches=120, workers=1, stages={"decode": decode}, jitter=0.02)))
    assert found.facts is not None
    return replace(found, facts=replace(found.facts, spin_ns=spin_ns))


def test_what_needs_no_core_is_not_slower_on_slow_cores() -> None:
    half = core_speeds(1e6, 2e6, {"decode": 100, "storage": 100})
    assert half is not None
    assert half.relative == pytest.approx(-0.5)
    assert half.explains == pytest.approx(1 / 1.5 - 1), "the half that is decoding takes twice as long"
    disk = core_speeds(1e6, 2e6, {"storage": 100})
    assert disk is not None
    assert disk.explains == 0
    assert core_speeds(None, 1e6, {"decode": 1}) is None


def test_two_runs_tell_the_same_of_the_cores_in_either_order() -> None:
    paths = ({"decode": 100}, {"decode": 20, "storage": 80})
    there, back = core_speeds(1.05e6, 1e6, *paths), core_speeds(1e6, 1.05e6, *paths[::-1])
    assert there is not None and back is not None
    assert there.explains is not None and back.explains is not None
    assert 1 + there.explains == pytest.approx(1 / (1 + back.explains), rel=0.002)


def test_a_spin_that_the_runs_own_work_contradicts_explains_nothing(tmp_path: Path) -> None:
    base = on_cores(tmp_path / "base", 40 * MS, 1.0e6)
    less = on_cores(tmp_path / "less", 36 * MS, 1.25e6)
    for first, second in ((base, less), (less, base)):
        speeds = compare([first, second])[0].cores
        assert speeds is not None and speeds.explains is None
        assert "what the machine explains is not known" in speeds.sentence
    slower = on_cores(tmp_path / "slower", 60 * MS, 1.25e6)  # slower by more than the cores: both are told
    gate = check(slower, baseline=base, max_regression=0.05)[0]
    assert gate.passed is False
    heavier = on_cores(tmp_path / "heavier", 60 * MS, 0.8e6)
    gate = check(heavier, baseline=base, max_regression=0.05)[0]
    assert gate.passed is False and "not known" in gate.says


@pytest.mark.parametrize(
    ("spin_ns", "work", "interval", "is_explained"),
    [
        (1.18e6, -0.15, (-0.17, -0.13), True),
        (1.18e6, -0.02, (-0.06, 0.02), False),
        (1.18e6, -0.08, (-0.09, -0.07), False),
        (1.18e6, -0.05, (-0.30, 0.20), True),
        (1.18e6, -0.40, (-0.42, -0.38), True),
        (0.8e6, 0.25, (0.22, 0.28), True),
        (0.8e6, 0.01, (-0.03, 0.05), False),
        (0.8e6, 0.60, (0.55, 0.65), True),
        (1.01e6, 0.20, (0.18, 0.22), True),
        (1.18e6, None, None, True),
    ],
    ids=[
        "as much less on faster cores",
        "as much as before",
        "half as much less",
        "too noisy to say",
        "the work itself became less",
        "as much more on slower cores",
        "as much as before on slower cores",
        "the work itself became more",
        "no difference of the cores is told",
        "the work was not observed",
    ],
)
def test_the_cores_explain_only_what_the_batches_show_too(
    spin_ns: float, work: float | None, interval: tuple[float, float] | None, is_explained: bool
) -> None:
    speeds = core_speeds(spin_ns, 1e6, {"decode": 1})
    assert speeds is not None
    assert (speeds.checked_by(work, interval).explains is not None) == is_explained


def test_slow_cores_are_no_regression(tmp_path: Path) -> None:
    base = on_cores(tmp_path / "base", 40 * MS, 1.0e6)
    slow = on_cores(tmp_path / "slow", 50 * MS, 1.25e6)
    same = on_cores(tmp_path / "same", 50 * MS, 1.0e6)
    speeds = compare([base, slow])[0].cores
    assert speeds is not None
    assert speeds.explains == pytest.approx(-0.2, abs=0.03)
    assert "slower" in speeds.sentence
    gate = check(slow, baseline=base, max_regression=0.05)[0]
    assert gate.passed is None
    assert "the cores were 20% slower" in gate.says
    assert check(same, baseline=base, max_regression=0.05)[0].passed is False
    unmeasured = on_cores(tmp_path / "unmeasured", 50 * MS, None)
    assert check(unmeasured, baseline=base, max_regression=0.05)[0].passed is False
