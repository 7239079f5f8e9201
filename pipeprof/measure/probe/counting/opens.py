"""Counts files that a worker opens again, and times that: `open`, and constructors that parse a header."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import tally
from pipeprof.record.names import counters

MOST_FILES: Final = 20_000
"""Files whose opening is remembered; the samples of a folder are more and are opened once each."""


_known: Final[set[Any]] = set()


class _Depth:
    """Number of timed constructors that are running: one may call another."""

    value = 0


def note_opened(file: Any) -> bool:
    """Count that `file` was opened to make a batch. Returns whether it had been opened before."""
    try:
        key = os.fspath(file)
        again = key in _known
    except Exception:  # a file object, a buffer; a path of the user's own kind may raise anything
        return False
    if len(_known) < MOST_FILES:
        _known.add(key)
    tally.add(counters.OPENED)
    if again:
        tally.add(counters.REOPENED)
    return again


def note_opened_by_user(file: Any) -> bool:
    """Count that `file` was opened, but not by a constructor that has been counted as its opening.

    Returns whether it had been opened before.
    """
    return not _Depth.value and note_opened(file)


def forget_files() -> None:
    """Begin anew, in a process that has just been forked."""
    _known.clear()


_FILES: Final = ("file", "name", "source", "path")
"""Parameter names by which constructors take the file that they open."""


def timed_constructor(original: Callable[..., Any]) -> Callable[..., Any]:
    """Time `__init__` of a reader: an archive, a table, a container of arrays."""

    def __init__(self: Any, *arguments: Any, **options: Any) -> Any:  # noqa: N807
        if active_batch() is None or _Depth.value:
            return original(self, *arguments, **options)
        file = arguments[0] if arguments else next((options[n] for n in _FILES if n in options), None)
        again = note_opened(file)
        _Depth.value += 1
        began_ns = monotonic_ns()
        try:
            return original(self, *arguments, **options)
        finally:
            _Depth.value -= 1
            took_ns = monotonic_ns() - began_ns
            tally.add(counters.PARSE_NS, took_ns)
            if again:
                tally.add(counters.REPEATED_PARSE_NS, took_ns)

    return __init__


def counted_rows(original: Callable[..., Any]) -> Callable[..., Any]:
    """Count the rows that a reader of tables has decoded, and time it: what it returns has `num_rows`."""

    def read(*arguments: Any, **options: Any) -> Any:
        began_ns = monotonic_ns()
        result = original(*arguments, **options)
        if active_batch() is not None:
            tally.add(counters.ROWS_NS, monotonic_ns() - began_ns)
            with suppress(Exception):  # another version may return something else
                tally.add(counters.ROWS, int(result.num_rows))
        return result

    return read


def counted_members(original: Callable[..., Any]) -> Callable[..., Any]:
    """Count the bytes of arrays that are unpacked whole, and time it: what it returns has `nbytes`."""

    def unpack(*arguments: Any, **options: Any) -> Any:
        began_ns = monotonic_ns()
        result = original(*arguments, **options)
        if active_batch() is not None:
            with suppress(Exception):  # a member that is not an array is returned as bytes
                tally.add(counters.MEMBER_BYTES, int(result.nbytes))
                tally.add(counters.MEMBERS_NS, monotonic_ns() - began_ns)
        return result

    return unpack


SEAMS: Final = (
    ("zipfile:ZipFile", "__init__", timed_constructor),
    ("tarfile:TarFile", "__init__", timed_constructor),
    ("h5py._hl.files:File", "__init__", timed_constructor),
    ("pyarrow.parquet.core:ParquetFile", "__init__", timed_constructor),
    ("pyarrow.parquet.core:ParquetFile", "read_row_group", counted_rows),
    ("pyarrow.parquet.core:ParquetFile", "read_row_groups", counted_rows),
    ("pyarrow.parquet.core:ParquetFile", "read", counted_rows),
    ("numpy.lib.npyio:NpzFile", "__getitem__", counted_members),
)
"""Module and class, name, and what replaces it, as in `auto_stages`."""
