from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from pipeprof.analyse import gates
from pipeprof.analyse.analysis import Analysis, load
from pipeprof.cli.show.check import command
from tests.factory import MS, Plan, make_run

pytestmark = pytest.mark.slow

LOOSE = {"read": 30 * MS, "decode": 60 * MS, "collate": 4 * MS}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def planted(directory: Path, seed: int, factor: float = 1.0) -> Analysis:
    """A worker-bound run whose workers take `factor` as long."""
    stages = {name: round(ns * factor) for name, ns in LOOSE.items()}
    plan = Plan(batches=250, workers=4, stages=stages, jitter=0.1, seed=seed, spans_every=0)
    return load(make_run(directory, plan))


def test_exit_0_where_every_gate_passes(healthy: Analysis) -> None:
    result = run(healthy.run.directory, "--max-stall", "5%", "--min-utilization", "0.9")
    assert result.exit_code == 0, result.output
    assert result.output.count("passed") == 2


def test_exit_1_where_one_fails(stalled: Analysis) -> None:
    result = run(stalled.run.directory, "--max-stall", "5%", "--min-utilization", "1%")
    assert result.exit_code == 1
    assert "FAILED" in result.output and "passed" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere", "--max-stall", "5%"],
        ["RUN"],
        ["RUN", "--max-stall", "5 apples"],
        ["RUN", "--max-stall", "5"],
        ["RUN", "--max-regression", "5%"],
        ["RUN", "--baseline", "RUN"],
    ],
)
def test_exit_2_for_bad_use(healthy: Analysis, arguments: list[str]) -> None:
    from pipeprof.errors import PipeprofError

    result = run(*(str(healthy.run.directory) if one == "RUN" else one for one in arguments))
    # what `main` turns into its exit code
    code = result.exception.exit_code if isinstance(result.exception, PipeprofError) else result.exit_code
    assert code == 2


def test_exit_3_where_the_run_cannot_tell(odd: dict[str, Analysis]) -> None:
    for name in ("one_batch", "bare", "torn"):
        result = run(odd[name].run.directory, "--max-stall", "5%")
        assert result.exit_code == 3, (name, result.output)
        assert "inconclusive" in result.output


def test_a_limit_within_the_noise_is_inconclusive_only_where_it_is_passed() -> None:
    from pipeprof.analyse.differences import Figure

    cases = [((0.04, 0.03, 0.06), True), ((0.055, 0.03, 0.08), None), ((0.09, 0.07, 0.11), False)]
    for (value, low, high), passed in cases:
        assert gates.at_most("g", "stall", Figure(value, low, high), 0.05).passed is passed
        assert gates.at_least("g", "use", Figure(1 - value, 1 - high, 1 - low), 0.95).passed is passed


@pytest.mark.slow
def test_twenty_repetitions_of_one_scenario_fail_at_most_once(tmp_path: Path) -> None:
    base = planted(tmp_path / "base", 100)
    failed = 0
    for seed in range(20):
        found = gates.check(planted(tmp_path / f"a{seed}", seed), baseline=base, max_regression=0.05)
        failed += gates.exit_code(found) == 1
    assert failed <= 1


def test_a_planted_regression_of_a_tenth_fails_nine_times_in_ten(tmp_path: Path) -> None:
    base = planted(tmp_path / "base", 100)
    failed = 0
    for seed in range(10):
        slow = planted(tmp_path / f"b{seed}", seed, factor=1 / 0.9)
        failed += gates.exit_code(gates.check(slow, baseline=base, max_regression=0.05)) == 1
    assert failed >= 9


def test_the_junit_file_counts_failures_and_doubts(
    stalled: Analysis, odd: dict[str, Analysis], tmp_path: Path
) -> None:
    path = tmp_path / "check.xml"
    run(stalled.run.directory, "--max-stall", "5%", "--min-utilization", "1%", "--junit", path)
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        "2",
        "1",
        "0",
    )
    gates.write_junit([gates.Gate("g\x00", None, "a<b & \x1b[31m")], Path("r\x07"), path)
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None and suite.get("errors") == "1"
    assert run(odd["bare"].run.directory, "--max-stall", "5%", "--junit", path).exit_code == 3
