"""Columns of a trace as Arrow arrays, made from their buffers and read from them.

`pyarrow.array`, and all that makes a scalar of Arrow such as `fill_null`, ask pandas about what they are
given, so their first call in a process imports pandas, if that is installed: up to two seconds of CPU, which
a short run, and a verb that reads one, would notice. `cast` imports Arrow's functions, 50 ms. Buffers import
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeprof.redact import redact

_INT64: Final = pa.int64()


def arrow_array(values: Sequence[Any] | pa.Array | None, kind: pa.DataType, rows: int) -> pa.Array:
    """Return `values` as an array of `kind`: None, and NaN in floats, is null; no values: `rows` nulls."""
    if values is None:
        return pa.nulls(rows, kind)
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "iu" and pa.types.is_integer(kind):
            return _fixed(values, kind, None)
        values = values.tolist()
    if pa.types.is_dictionary(kind):
        names: dict[str, int] = {}
        numbers = [-1 if name is None else names.setdefault(name, len(names)) for name in values]
        return named(np.array(numbers, np.int32), list(names))
    if pa.types.is_string(kind):
        return text_array(values)
    missing = [value is None or value != value for value in values]  # noqa: PLR0124 - NaN
    filled = [0 if gone else value for gone, value in zip(missing, values, strict=True)]
    return _fixed(np.array(filled), kind, ~np.array(missing, np.bool_))


def by_name(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return rows as columns under `names`; nothing if there are none."""
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}


def nullable(
    values: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_], kind: pa.DataType = _INT64
) -> pa.Array:
    """Return integers as `kind`, null if not `seen`."""
    return _fixed(values, kind, seen)


def flags(values: npt.NDArray[np.bool_]) -> pa.Array:
    """Return truth values as an array, as for a filter."""
    return pa.BooleanArray.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def named(numbers: npt.NDArray[np.int32], names: Sequence[str]) -> pa.Array:
    """Return a dictionary column: `names[number]` for each number, null for a negative one."""
    kind = pa.dictionary(pa.int32(), pa.string())
    buffers = [_bits(numbers >= 0), pa.py_buffer(np.maximum(numbers, 0).astype(np.int32))]
    return pa.DictionaryArray.from_buffers(kind, len(numbers), buffers, text_array(names))


def whole_numbers(column: pa.ChunkedArray | pa.Array, missing: int) -> npt.NDArray[np.int64]:
    """Return a column of integers, or of booleans, as int64, `missing` for null."""
    return _read(column, np.dtype(np.int64), missing)


def decimals(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of numbers as float64, NaN for null."""
    return _read(column, np.dtype(np.float64), np.nan)


def _read(column: Any, dtype: np.dtype[Any], missing: float) -> npt.NDArray[Any]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    seen, *values_at = array.buffers()
    data = values_at[0] if values_at else None  # a column of type null has no values at all
    if data is None:
        return np.full(len(array), missing, dtype=dtype)
    span = slice(array.offset, array.offset + len(array))
    if pa.types.is_boolean(array.type):
        held = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    else:
        held = np.frombuffer(data, array.type.to_pandas_dtype())
    values = held[span].astype(dtype, copy=False)
    if array.null_count == 0:
        return values
    bits = np.unpackbits(np.frombuffer(seen, np.uint8), bitorder="little")[span]
    return np.where(bits == 1, values, missing)


def _fixed(values: npt.NDArray[Any], kind: pa.DataType, seen: npt.NDArray[np.bool_] | None) -> pa.Array:
    if pa.types.is_boolean(kind):
        data = _bits(values.astype(np.bool_))
    else:
        data = pa.py_buffer(np.ascontiguousarray(values, kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(values), [None if seen is None else _bits(seen), data])


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Return texts as an array. Every text enters a table through it, so that no credential passes."""
    texts = [redact(value or "").encode("utf-8", "replace") for value in values]
    offsets = np.array([0, *accumulate(map(len, texts))], np.int32)
    seen = _bits(np.array([value is not None for value in values], np.bool_))
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)), seen)


def _bits(flags: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))
