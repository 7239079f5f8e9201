"""Arrays made from buffers are those that Arrow would make of the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeprof.columns import arrow_array, named, nullable

NAME = pa.dictionary(pa.int32(), pa.string())
KINDS: list[tuple[pa.DataType, Any]] = [
    (pa.int8(), st.integers(-(2**7), 2**7 - 1)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), st.integers(-(2**62), 2**62)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text()),
    (NAME, st.text()),
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
