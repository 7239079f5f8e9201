"""h5py: reads of a data set, which decompress what they read. Opening is counted in `counting.opens`."""

from __future__ import annotations

from typing import Any, Final

from pipeprof.measure.probe.adapters.staged import Seam, called, staged
from pipeprof.measure.probe.spans import READ, NoSpan, Span


def _read(array: Any, timing: Span | NoSpan) -> None:
    timing.bytes = array.nbytes


SEAMS: Final[tuple[Seam, ...]] = (("h5py._hl.dataset:Dataset", "__getitem__", staged(called(READ), _read)),)
