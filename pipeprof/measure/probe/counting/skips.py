"""Counts bytes that are decompressed to be skipped: a compressed stream has no random access."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import tally
from pipeprof.record.names import counters


def _counted_seek(original: Callable[..., Any]) -> Callable[..., Any]:
    """Count what a seek decompresses: all up to its end, from the start of the file if that is behind."""

    def seek(self: Any, *arguments: Any, **options: Any) -> Any:
        if active_batch() is None:
            return original(self, *arguments, **options)
        before = after = 0
        with suppress(Exception):
            before = self.tell()
        began_ns = monotonic_ns()
        after = original(self, *arguments, **options)
        tally.add(counters.SKIPPED_NS, monotonic_ns() - began_ns)
        with suppress(TypeError):  # a subclass may return anything
            tally.add(counters.SKIPPED_BYTES, after - before if after >= before else after)
        return after

    return seek


SEAMS: Final = (
    ("_compression:DecompressReader", "seek", _counted_seek),  # gzip, bz2 and lzma, up to Python 3.13
    ("compression._common._streams:DecompressReader", "seek", _counted_seek),
    ("zipfile:ZipExtFile", "seek", _counted_seek),
)
"""Module and class, name, and what replaces it, as in `auto_stages`."""
