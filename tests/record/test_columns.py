"""Arrays made from buffers are those that Arrow would make of the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeprof.record.columns import arrow_array, decimals, named, nullable, whole_numbers
from pipeprof.redact import redact

NAME = pa.dictionary(pa.int32(), pa.string())
TEXTS = st.text().filter(lambda text: redact(text) == text)
"""Texts without what looks like a credential, which is struck out."""
KINDS: list[tuple[pa.DataType, Any]] = [
    (pa.int8(), st.integers(-(2**7), 2**7 - 1)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), st.integers(-(2**62), 2**62)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), TEXTS),
    (NAME, TEXTS),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=str)
def test_as_arrow_makes_them(kind: pa.DataType, values: Any) -> None:
    @settings(deadline=None)  # Arrow's own way imports pandas first
    @given(st.lists(st.none() | values))
    def same(found: list[Any]) -> None:
        ours = arrow_array(found, kind, len(found))
        ours.validate(full=True)
        assert ours.type == kind
        assert ours.to_pylist() == pa.array(found, kind).to_pylist()

    same()


def test_arrays_of_numpy_and_nothing_at_all() -> None:
    assert arrow_array(np.arange(3, dtype=np.uint32), pa.int64(), 3).to_pylist() == [0, 1, 2]
    assert arrow_array(np.array([0.5, np.nan]), pa.float64(), 2).to_pylist() == [0.5, None]
    assert arrow_array(np.array(["a", "b", "a"]), NAME, 3).to_pylist() == ["a", "b", "a"]
    assert arrow_array(None, pa.string(), 2).to_pylist() == [None, None]
    assert nullable(np.array([1, -1, 3]), np.array([True, False, True])).to_pylist() == [1, None, 3]
    assert named(np.array([1, 0, -1], np.int32), ["x", "y"]).to_pylist() == ["y", "x", None]


@given(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)), st.integers(0, 9), st.integers(1, 4))
@settings(deadline=None)
def test_whole_numbers_are_those_of_arrow(values: list[int | None], start: int, pieces: int) -> None:
    """Of slices too, whose buffers begin before them, and of columns in pieces."""
    column = pa.chunked_array([pa.array(values, pa.int32())] * pieces).slice(start)
    expected = [-1 if value is None else value for value in column.to_pylist()]
    assert whole_numbers(column, -1).tolist() == expected
    assert whole_numbers(column.combine_chunks(), -1).tolist() == expected


def test_whole_numbers_of_nothing_observed() -> None:
    assert whole_numbers(pa.nulls(3, pa.int64()), -1).tolist() == [-1, -1, -1]
    assert whole_numbers(pa.nulls(2), -1).tolist() == [-1, -1]
    assert whole_numbers(pa.chunked_array([], pa.int16()), -1).tolist() == []


def test_decimals_are_nan_where_nothing_was_observed() -> None:
    column = pa.chunked_array([pa.array([1.5, None], pa.float32()), pa.array([2.0], pa.float32())])
    assert decimals(column).tolist()[::2] == [1.5, 2.0]
    assert np.isnan(decimals(column)[1])
    assert decimals(pa.array([3, 4])).tolist() == [3.0, 4.0]
