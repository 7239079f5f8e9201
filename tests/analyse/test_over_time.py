from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis


def test_shares_sum_to_one_and_to_the_ledger(stalled: Analysis) -> None:
    found = stalled.attribution
    assert found is not None
    edges = series.edges(found.window.start_ns, found.window.end_ns)
    shares = series.shares(found, edges)
    parts = (shares.computing, shares.copying, shares.waiting, shares.idle, shares.outside)
    assert np.allclose(sum(parts), 1)
    wall, ledger = found.window.wall_ns, found.whole
    assert shares.of_loop(shares.computing) == pytest.approx(ledger.ledger_ns["accelerator"] / wall, rel=1e-7)
    assert shares.of_loop(shares.waiting) == pytest.approx(ledger.stall_ns / wall, rel=1e-7)


@given(st.integers(0, 10**15), st.integers(1, 10**15))
def test_edges_cover_the_window_with_a_number_of_bins_that_a_page_can_show(start: int, wall: int) -> None:
    edges = series.edges(start, start + wall)
    assert edges[0] == start and edges[-1] == start + wall
    assert (np.diff(edges) > 0).all()
    assert len(edges) - 1 <= 181


def test_histogram_counts_every_wait_that_lasted_once() -> None:
    waits = np.array([0, 500, 9_999, 10_000, 1_000_000, 1_000_001, 10**9], dtype=np.int64)
    found = series.histogram(waits)
    assert found.counts.sum() == 6
    assert found.edges_ns[0] <= 500 and found.edges_ns[-1] > 10**9


def test_histogram_of_no_wait_is_empty() -> None:
    assert len(series.histogram(np.zeros(5, dtype=np.int64)).counts) == 0


def test_means_per_bin_know_what_was_not_observed() -> None:
    edges = np.array([0, 10, 20, 30], dtype=np.int64)
    means = series.mean_per_bin(np.array([1, 2, 25, 40]), np.array([1.0, 3.0, np.nan, 9.0]), edges)
    assert means[0] == 2.0
    assert np.isnan(means[1:]).all()
