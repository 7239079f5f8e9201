"""The run as a Chrome trace, JSON that ui.perfetto.dev and chrome://tracing open, without another package.

It has the tracks, slices, flows and counters of the Perfetto trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from pipeprof.analyse.analysis import Analysis
from pipeprof.errors import TraceError
from pipeprof.record.reader import Run
from pipeprof.report.export.perfetto import ROOT, Slice, compose
from pipeprof.timeline import Ints

_PID: Final = 1
_NS_PER_US: Final = 1000


class _Events:
    """The list of events, written one by one."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._tracks, self._is_first = file, ROOT, True
        self._counters: dict[int, tuple[str, str]] = {}
        """Name and unit of each counter, by its track."""

    def track(self, name: str, parent: int = ROOT, unit: str | None = None, uuid: int = 0) -> int:
        """Describe a track; a counter if a unit is given."""
        if uuid == ROOT:
            self._write("M", ROOT, name="process_name", args={"name": name})
            return ROOT
        self._tracks += 1
        if unit is not None:
            self._counters[self._tracks] = name, unit or "value"
            return self._tracks
        self._write("M", self._tracks, name="thread_name", args={"name": name})
        self._write("M", self._tracks, name="thread_sort_index", args={"sort_index": self._tracks})
        return self._tracks

    def slices(self, track: int, boxes: Sequence[Slice]) -> None:
        """Write the boxes of a track, each before those within it."""
        for box in boxes:
            duration = (box.end_ns - box.start_ns) / _NS_PER_US
            self._write(
                "X", track, box.start_ns, name=box.name, cat=box.category, dur=duration, args=dict(box.notes)
            )
            if box.flow is not None:
                kind = "f" if box.ends_flow else "s" if box.category == "batch" else "t"
                binds = {"bp": "e"} if kind == "f" else {}
                self._write(kind, track, box.start_ns, name="batch", cat="flow", id=box.flow, **binds)
            self.slices(track, box.inner)

    def instants(self, track: int, boxes: Sequence[Slice]) -> None:
        """Write boxes as single moments, at their starts."""
        for box in sorted(boxes, key=lambda box: box.start_ns):
            self._write(
                "i", track, box.start_ns, name=box.name, cat=box.category, s="t", args=dict(box.notes)
            )

    def counter(self, track: int, times: Ints, values: Any) -> None:
        """Write a counter's values."""
        name, unit = self._counters[track]
        for time_ns, value in zip(times.tolist(), np.asarray(values).tolist(), strict=True):
            self._write("C", track, time_ns, name=name, args={unit: value})

    def clock(self, run: Run) -> None:
        """Leave the time of day out: the format has no place for it."""

    def _write(self, kind: str, track: int, time_ns: int = 0, **more: Any) -> None:
        event = {"ph": kind, "pid": _PID, "tid": track, "ts": time_ns / _NS_PER_US, **more}
        self._file.write("\n" if self._is_first else ",\n")
        json.dump(event, self._file, allow_nan=False)
        self._is_first = False


def write(analysis: Analysis, path: Path) -> Path:
    """Write the trace of a run. Raises `TraceError` if it cannot be written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ns", "traceEvents": [')
            compose(_Events(file), analysis)
            file.write("\n]}\n")
        temporary.replace(path)
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
