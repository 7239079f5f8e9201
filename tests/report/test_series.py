from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeprof.pipeline import measured_window
from pipeprof.report import series
from pipeprof.simulate.answer import Answer


def test_shares_sum_to_one_and_agree_with_the_ledger(stalled: Answer) -> None:
    window = measured_window(stalled.timeline)
    assert window is not None and stalled.ledger is not None
    edges = series.edges(window.start_ns, window.end_ns)
    shares = series.shares(stalled.timeline, edges)
    total = shares.computing + shares.copying + shares.waiting + shares.idle
    assert np.allclose(total, 1)
    width = np.diff(edges)
    busy = float((shares.computing * width).sum())
    assert abs(busy - stalled.ledger.ledger_ns["accelerator"]) < 1e-6 * window.wall_ns


@given(st.integers(0, 10**15), st.integers(1, 10**15))
def test_edges_cover_the_window_with_a_number_of_bins_that_a_page_can_show(start: int, wall: int) -> None:
    edges = series.edges(start, start + wall)
    assert edges[0] == start and edges[-1] == start + wall
    assert (np.diff(edges) > 0).all()
    assert len(edges) - 1 <= 181


def test_histogram_counts_every_wait_once() -> None:
    waits = np.array([0, 500, 9_999, 10_000, 1_000_000, 1_000_001, 10**9], dtype=np.int64)
    found = series.histogram(waits)
    assert found.none == 3
    assert found.counts.sum() == 4
    assert found.edges_ns[0] <= 10_000 and found.edges_ns[-1] > 10**9


def test_histogram_of_no_wait_is_empty() -> None:
    found = series.histogram(np.zeros(5, dtype=np.int64))
    assert found.none == 5 and len(found.counts) == 0


def test_means_per_bin_know_what_was_not_observed() -> None:
    edges = np.array([0, 10, 20, 30], dtype=np.int64)
    means = series.mean_per_bin(np.array([1, 2, 25, 40]), np.array([1.0, 3.0, np.nan, 9.0]), edges)
    assert means[0] == 2.0
    assert np.isnan(means[1:]).all()
