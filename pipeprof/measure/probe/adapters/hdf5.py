"""h5py: reads of a data set, and what is decompressed for them: whole chunks, whatever part is requested.

Opening is counted in `counting.opens`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from math import prod
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.probe.adapters.staged import Seam, called, staged
from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.spans import READ, NoSpan, Span
from pipeprof.record.names.counters import SKIPPED_BYTES, SKIPPED_NS


def _read(array: Any, timing: Span | NoSpan) -> None:
    timing.bytes = array.nbytes


def touched(selection: Any, shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[range, ...]:
    """Return which chunks of each axis a selection of integers and slices lies in.

    Raises:
        TypeError: it selects otherwise, such as by a list or a mask.
    """
    asked = selection if isinstance(selection, tuple) else (selection,)
    if Ellipsis in asked:
        at = asked.index(Ellipsis)
        asked = (*asked[:at], *[slice(None)] * (len(shape) - len(asked) + 1), *asked[at + 1 :])
    asked = (*asked, *[slice(None)] * (len(shape) - len(asked)))
    return tuple(_on_axis(*each) for each in zip(asked, shape, chunks, strict=True))


def _on_axis(selected: Any, length: int, chunk: int) -> range:
    if isinstance(selected, slice):
        rows = range(length)[selected]
        first, last = (rows[0], rows[-1]) if rows else (0, -1)
    else:
        first = last = range(length)[operator.index(selected)]
    return range(first // chunk, last // chunk + 1)


class _Last:
    """Place of the last read: one that stays in its chunks finds them unpacked in HDF5's cache."""

    where: Any = None


def _counted(original: Callable[..., Any]) -> Callable[..., Any]:
    def __getitem__(self: Any, selection: Any, *rest: Any, **options: Any) -> Any:  # noqa: N807
        if active_batch() is None:
            return original(self, selection, *rest, **options)
        began_ns = monotonic_ns()
        result = original(self, selection, *rest, **options)
        took_ns = monotonic_ns() - began_ns
        with suppress(Exception):  # a selection of another kind, a data set without chunks or filters
            _count(self, selection, result.nbytes, took_ns)
        return result

    return __getitem__


def _count(dataset: Any, selection: Any, used_bytes: int, took_ns: int) -> None:
    """Count what was unpacked and is not used, and its part of the time."""
    chunks = dataset.chunks
    if chunks is None or not dataset.id.get_create_plist().get_nfilters():
        return  # what is not filtered need not be read whole
    where = (dataset.id.id, touched(selection, dataset.shape, chunks))
    again, _Last.where = where == _Last.where, where
    chunk_bytes = prod(chunks) * dataset.dtype.itemsize
    if again and chunk_bytes <= dataset.id.get_access_plist().get_chunk_cache()[1]:
        return
    unpacked = prod(map(len, where[1])) * chunk_bytes
    if unpacked > used_bytes:
        tally.add(SKIPPED_BYTES, unpacked - used_bytes)
        tally.add(SKIPPED_NS, took_ns * (unpacked - used_bytes) // unpacked)


def _timed(original: Callable[..., Any]) -> Callable[..., Any]:
    return staged(called(READ), _read)(_counted(original))


SEAMS: Final[tuple[Seam, ...]] = (("h5py._hl.dataset:Dataset", "__getitem__", _timed),)
