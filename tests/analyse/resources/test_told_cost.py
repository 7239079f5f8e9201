"""The benchmark that compares the own cost told by a run with the paired one, in miniature."""

from __future__ import annotations

import pytest

from pipeprof.measure.probe.unprobed import Blocks
from pipeprof.record.schema import MISSING, UNPROBED_FIRST, UNPROBED_PERIOD
from tests.benchmarks import told_cost
from tests.benchmarks.told_cost import TURN_BATCHES, Compared, Estimate


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


def test_a_block_and_its_neighbours_lie_in_one_turn() -> None:
    blocks = Blocks(0)
    edges = []
    for number in range(2 * UNPROBED_PERIOD):
        blocks.begin()
        if blocks.thread_cpu_ns != MISSING:
            edges.append(number)
    turns = [number // TURN_BATCHES for number in edges]
    assert len(edges) == 8
    assert len({*turns[:4]}) == len({*turns[4:]}) == 1
    assert UNPROBED_FIRST % TURN_BATCHES == 0


def test_both_figures_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    told_cost.main(["--only", "tiny0", "--scale", "0.01"])
    assert "tiny0: told " in capsys.readouterr().out
