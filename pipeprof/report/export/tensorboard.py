"""The run as TensorBoard scalars: utilisation, stall, speed and stage times over the measured steps.

Written with the `tensorboard` package's own event writer; TensorFlow and torch are not needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.errors import TraceError
from pipeprof.timeline import NOT_OBSERVED, Ints
from pipeprof.units import NS_PER_S

POINTS: Final = 500
"""Points of a curve at most."""
STEPS_A_POINT: Final = 4
"""Each point is a mean over at least that many steps' time, in the mean."""

EVENT_FILE: Final = "events.out.tfevents.0.pipeprof"
"""Name of the event file: TensorBoard looks for the middle of it."""

Curve = tuple[str, Any]
"""A tag and one value a point, NaN if there is none."""


def write(analysis: Analysis, directory: Path) -> Path:
    """Write an event file into the new `directory`, whole or not at all.

    Raises `TraceError` without the package tensorboard, for a run without a measured step, or if the
    directory exists or cannot be written.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        remedy = "pip install 'pipeprof[tensorboard]'"
        raise TraceError("TensorBoard scalars need the package tensorboard", remedy) from error
    attribution = analysis.attribution
    if attribution is None:
        raise TraceError(
            f"{analysis.run.directory} has no measured step", "measure more steps than the warm-up"
        )
    if directory.exists():
        raise TraceError(f"{directory} exists already", "choose another --out")
    last, edges = _points(analysis, attribution.window.start_ns, attribution.window.end_ns)
    begun_s = (analysis.run.meta.clock.unix_ns or 0) / NS_PER_S
    temporary = directory.with_name(f".{directory.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # tensorboard's own EventFileWriter writes in a thread, which prints a traceback on a full disk
        with (temporary / EVENT_FILE).open("wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=begun_s, file_version="brain.Event:2").SerializeToString())
            for event in _events(analysis, last, edges):
                writer.write(event.SerializeToString())
        temporary.replace(directory)
    except OSError as error:
        raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _points(analysis: Analysis, start_ns: int, end_ns: int) -> tuple[Ints, Ints]:
    """Return the last step of each point, and the edges of the points' equal time intervals."""
    t = analysis.timeline
    measured = int(t.measured.sum())
    count = max(1, min(POINTS, measured // STEPS_A_POINT))
    edges = np.linspace(start_ns, max(end_ns, start_ns + count), count + 1).astype(np.int64)
    last = np.searchsorted(t.step_end_ns, edges[1:], side="right") - 1
    return t.step[np.maximum(last, 0)], edges


def _curves(analysis: Analysis, edges: Ints) -> Iterator[Curve]:
    t, attribution = analysis.timeline, analysis.attribution
    assert attribution is not None, "a run without a measured step has no curves"
    shares = series.shares(attribution, edges)
    yield "utilisation/computing", shares.computing
    yield "utilisation/copying", shares.copying
    yield "stall/waiting for data", shares.waiting
    bounds, bins = attribution.window.loop_time(attribution.step_bounds), attribution.window.loop_time(edges)
    samples = series.spread(bounds[:-1], bounds[1:], np.maximum(t.samples[t.measured], 0), bins)
    loop_ns = np.diff(bins).astype(np.float64)
    yield "speed/samples per second", samples * NS_PER_S / np.where(loop_ns > 0, loop_ns, np.nan)
    for name, stage in sorted(attribution.stages.making.items()):
        known = np.where(t.start_ns != NOT_OBSERVED, stage.wall_ns / 1e6, np.nan)
        yield f"stage ms a batch/{name}", series.mean_per_bin(t.step_end_ns - 1, known, edges)


def _events(analysis: Analysis, last: Ints, edges: Ints) -> Iterator[Any]:
    """Yield one event a curve and point, at the wall-clock time of the point's end."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    clock = analysis.run.meta.clock
    offset_ns = (clock.unix_ns or 0) - (clock.monotonic_ns or 0)
    for tag, values in _curves(analysis, edges):
        for step, end_ns, value in zip(last.tolist(), edges[1:].tolist(), values.tolist(), strict=True):
            if np.isfinite(value):
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                yield Event(wall_time=(end_ns + offset_ns) / NS_PER_S, step=step, summary=summary)
