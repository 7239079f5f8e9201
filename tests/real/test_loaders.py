"""Loaders that make their iterator themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.record.reader import load
from tests.forked import Program, verb

HERE = Path(__file__).parent


def profiled(script: str) -> object:
    import runpy
    import sys

    sys.argv = [script, "profile"]
    return runpy.run_path(str(HERE / script), run_name="__main__")


@pytest.mark.parametrize(("script", "steps"), [("own_get_iterator.py", 40), ("iterator_made_in_init.py", 80)])
def test_trace_sees_a_loader_that_makes_its_iterator_itself(script: str, steps: int, tmp_path: Path) -> None:
    traced = Program(verb("trace", "--no-report", "--out", "out", str(HERE / script)), tmp_path).finished()
    assert traced.returncode == 0, traced.stderr
    run = load(tmp_path / "out")
    assert run.table("steps").num_rows == steps
    assert set(run.table("batches")["worker"].to_pylist()) == {0, 1}, "the inside of the workers is seen"


def test_profile_sees_a_loader_that_makes_its_iterator_itself(tmp_path: Path) -> None:
    done = Program(lambda: profiled("own_get_iterator.py"), tmp_path).finished()
    assert done.stdout == "40 40\n", done.stderr
    assert load(tmp_path / "out").table("batches").num_rows == 40


def test_profile_sees_the_waits_of_an_iterator_that_was_there_before(tmp_path: Path) -> None:
    done = Program(lambda: profiled("iterator_made_in_init.py"), tmp_path).finished()
    assert done.stdout == "80 80\n", done.stderr
    run = load(tmp_path / "out")
    assert any("of loader0 the waits alone are observed" in warning for warning in run.meta.warnings)
    assert run.table("batches").num_rows == 0
    assert "loader0: what its workers do: they had been started before" in run.meta.not_observed
