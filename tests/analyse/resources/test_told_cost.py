"""The benchmark that compares the own cost told by a run with the paired one, in miniature."""

from __future__ import annotations

import pytest

from tests.benchmarks import told_cost
from tests.benchmarks.told_cost import Compared, Estimate


def test_half_a_point_apart_is_held_and_more_only_within_the_intervals() -> None:
    paired = Estimate(2.0, 1.9, 2.1)
    assert Compared(Estimate(2.4, 2.35, 2.45), paired, "").is_held
    assert not Compared(Estimate(2.6, 2.5, 2.7), paired, "").is_held
    wide = Compared(Estimate(2.6, 2.0, 3.2), paired, "")
    assert wide.is_held
    assert not wide.is_seen


def test_parts_add_up_with_the_root_of_their_squares() -> None:
    total = Estimate(10.0, 7.0, 13.0) + Estimate(1.0, -3.0, 5.0)
    assert total == Estimate(11.0, 6.0, 16.0)


def test_both_figures_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    told_cost.main(["--only", "tiny0", "--scale", "0.01"])
    assert "tiny0: told " in capsys.readouterr().out
