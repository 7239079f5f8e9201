"""The run as TensorBoard scalars: utilisation, stall, speed and stage times over the measured steps.

Written with the `tensorboard` package's own event writer; TensorFlow and torch are not needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeprof.errors import TraceError
from pipeprof.pipeline import NOT_OBSERVED, Ints, measured_window
from pipeprof.report import series
from pipeprof.report.facts import Answer

POINTS: Final = 500
"""Points of a curve at the most."""
STEPS_A_POINT: Final = 4
"""Each point is a mean over at least so many steps' time, in the mean."""

Curve = tuple[str, Any]
"""A tag and one value a point, NaN where there is none."""


def write(answer: Answer, directory: Path) -> Path:
    """Write an event file into the new `directory`, whole or not at all.

    Raises `TraceError` without the package tensorboard, for a run without a measured step, and where the
    directory exists or cannot be written.
    """
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        remedy = "pip install 'pipeprof[tensorboard]'"
        raise TraceError("TensorBoard scalars need the package tensorboard", remedy) from error
    window = measured_window(answer.timeline)
    if window is None:
        raise TraceError(
            f"{answer.run.directory} has no measured step", "measure more steps than the warm-up"
        )
    if directory.exists():
        raise TraceError(f"{directory} exists already", "choose another --out")
    last, edges = _points(answer, window.start_ns, window.end_ns)
    temporary = directory.with_name(f".{directory.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        writer = EventFileWriter(str(temporary))
        try:
            for event in _events(answer, last, edges):
                writer.add_event(event)
        finally:
            writer.close()
        temporary.replace(directory)
    except OSError as error:
        raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _points(answer: Answer, start_ns: int, end_ns: int) -> tuple[Ints, Ints]:
    """The last step that each point tells of, and the edges of the points' time, all of one length."""
    t = answer.timeline
    measured = int((~t.warmup).sum())
    count = max(1, min(POINTS, measured // STEPS_A_POINT))
    edges = np.linspace(start_ns, max(end_ns, start_ns + count), count + 1).astype(np.int64)
    last = np.searchsorted(_ended(answer), edges[1:], side="left") - 1
    return t.step[np.maximum(last, 0)], edges


def _ended(answer: Answer) -> Ints:
    """The last moment of each step; where no device was observed, when its batch was taken."""
    t = answer.timeline
    seen = t.compute_end_ns != NOT_OBSERVED
    return np.maximum.accumulate(np.where(seen, t.compute_end_ns - 1, t.take_ns))


def _curves(answer: Answer, edges: Ints) -> Iterator[Curve]:
    t = answer.timeline
    shares = series.shares(t, edges)
    yield "utilisation/computing", shares.computing
    yield "utilisation/copying", shares.copying
    yield "stall/waiting for data", shares.waiting
    samples = series.spread(t.request_ns, np.append(t.request_ns[1:], edges[-1]), t.samples, edges)
    yield "speed/samples per second", samples * 1e9 / np.diff(edges)
    if answer.attribution is None:
        return
    for name, stage in sorted(answer.attribution.stages.making.items()):
        known = np.where(t.start_ns != NOT_OBSERVED, stage.wall_ns / 1e6, np.nan)
        yield f"stage ms a batch/{name}", series.mean_per_bin(_ended(answer), known, edges)


def _events(answer: Answer, last: Ints, edges: Ints) -> Iterator[Any]:
    """One event a curve and point, at the wall-clock time of the point's end."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    clock = answer.run.meta.get("clock") or {}
    offset_ns = (clock.get("unix_ns") or 0) - (clock.get("monotonic_ns") or 0)
    for tag, values in _curves(answer, edges):
        for step, end_ns, value in zip(last.tolist(), edges[1:].tolist(), values.tolist(), strict=True):
            if np.isfinite(value):
                told = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                yield Event(wall_time=(end_ns + offset_ns) / 1e9, step=step, summary=told)
