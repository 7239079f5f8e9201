"""Integers that processes share stay as they are where another process's cannot be had."""

from __future__ import annotations

import pickle

import pytest

from pipeprof.measure.storage.shared_cells import SharedCells


def test_a_process_that_is_gone_takes_no_cells_with_it() -> None:
    mine, other = SharedCells(2, "mine"), SharedCells(2, "other")
    offered = pickle.loads(pickle.dumps(other)).block
    there = pickle.loads(pickle.dumps(other.block))
    other.cells[1] = 7
    mine.join(offered)
    assert list(mine.cells) == [0, 7]
    other.close()
    with pytest.raises(OSError, match="No such file"):
        mine.join(there)
    assert list(mine.cells) == [0, 7]
    mine.close()
