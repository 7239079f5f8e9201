"""Which probed batch stands for each unprobed one, and that many workers take no longer to search."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest

from pipeprof.record.schema import PROBED_OF, UNPROBED_BLOCK
from pipeprof.timeline import Ints, _stand_ins
from tests.factory import MS

Bools = npt.NDArray[np.bool_]


def found(unprobed: Bools, worker: Ints, took_ms: npt.NDArray[np.float64]) -> Ints:
    start = np.arange(len(unprobed)) * MS
    finish = start + (took_ms * MS).astype(np.int64)
    return _stand_ins(unprobed, np.zeros_like(worker), worker, start, finish)


def batches(seed: int, count: int, workers: int) -> tuple[Bools, Ints, npt.NDArray[np.float64]]:
    """Random batches, of two lengths that no other comes near: 10 ms and 100 ms."""
    rng = np.random.default_rng(seed)
    unprobed = rng.random(count) < rng.choice([0.2, 0.9])
    return unprobed, rng.integers(0, workers, count), rng.choice([10.0, 100.0], count)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_one_of_the_last_of_its_worker_that_took_as_long(seed: int) -> None:
    unprobed, worker, took = batches(seed, 300, 3)
    chosen = found(unprobed, worker, took)
    turns: dict[tuple[int, float], int] = {}
    for n in range(len(unprobed)):
        if not unprobed[n]:
            assert chosen[n] == n
            continue
        key = (int(worker[n]), float(took[n]))
        alike = np.flatnonzero(~unprobed & (worker == key[0]) & (took == key[1]))
        if not len(alike):
            continue
        turn = turns.get(key, 0)
        turns[key] = turn + 1
        place = int((alike < n).sum()) - 1 - turn % UNPROBED_BLOCK
        assert chosen[n] == alike[max(place, 0)]


def test_another_workers_stands_in_if_its_own_has_none_that_took_as_long() -> None:
    unprobed = np.array([False, False, True, False, True])
    worker, took = np.array([0, 1, 0, 0, 0]), np.array([100.0, 10.0, 10.0, 100.0, 1_000.0])
    assert found(unprobed, worker, took).tolist() == [0, 1, 1, 3, 3]


def test_none_of_another_loader_stands_in() -> None:
    unprobed, times = np.array([False, True]), np.array([0, MS])
    assert _stand_ins(unprobed, np.array([0, 1]), np.zeros(2, int), times, times + MS).tolist() == [0, -1]


def test_the_search_takes_no_longer_with_many_workers() -> None:
    """Many lengths, 64 workers: a pass over all batches for each pair of them takes 7 times as long."""
    count = 200_000
    took = np.exp(np.random.default_rng(1).normal(3, 1, count))

    def spent(workers: int) -> float:
        numbers = np.arange(count)
        began = time.process_time()
        found(numbers // workers % PROBED_OF != 0, numbers % workers, took)
        return time.process_time() - began

    assert min(spent(64) for _ in range(3)) < 4 * min(spent(1) for _ in range(3))
