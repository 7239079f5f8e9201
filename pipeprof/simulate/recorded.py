"""The main loop of a recorded run as aligned arrays: one entry a step whose batch was seen being made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.charge import PART, READ, with_nan
from pipeprof.analyse.stolen import with_stolen
from pipeprof.pipeline import NOT_OBSERVED, Ints, Keys, Timeline, ints, read_ints, read_timeline
from pipeprof.trace import Run

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, summed over each batch; NaN where not observed."""

    wall: Floats
    cpu: Floats
    runq: Floats
    queue: Floats
    bytes: Floats
    count: Floats


@dataclass(frozen=True, slots=True)
class Recorded:
    """Steps of the loader that the loop took most from, with what their batches took to make."""

    timeline: Timeline
    stages: dict[str, Stage]
    """By name; making a batch only, not the loop."""
    columns: dict[str, Floats]
    """Of the `batches` table, NaN where not observed."""
    met: Floats
    """How long the loop met the other ranks of its job after each step, in ns; 0 where it did not."""

    def __len__(self) -> int:
        return len(self.timeline)


MOST_STEPS: Final = 20_000
"""Steps that demands are taken from: more would not change what is predicted, and cost seconds."""
_COLUMNS = ("cpu_ns", "runq_ns", "helper_cpu_ns", "bytes")
_STAGE_COLUMNS = ("wall_ns", "cpu_ns", "runq_ns", "queue_ns", "bytes", "count")


def read_recorded(run: Run) -> Recorded:
    """The steps of `run` that can be replayed."""
    whole = read_timeline(run)
    seen = (
        (whole.start_ns != NOT_OBSERVED) & (whole.finish_ns != NOT_OBSERVED) & (whole.take_ns != NOT_OBSERVED)
    )
    loader = np.bincount(whole.loader[seen]).argmax() if seen.any() else 0
    timeline = _part(whole, np.flatnonzero(seen & (whole.loader == loader))[:MOST_STEPS])
    columns = {name: with_nan(ints(run.table("batches")[name])[timeline.batch_row]) for name in _COLUMNS}
    wall = (timeline.finish_ns - timeline.start_ns).astype(np.float64)
    columns["runq_ns"] = with_stolen(run, timeline.finish_ns, wall, columns["cpu_ns"], columns["runq_ns"])
    return Recorded(timeline, _stages(run, timeline), columns, _met(run, timeline))


def _met(run: Run, timeline: Timeline) -> Floats:
    found = read_ints(run, "collectives", ("step", "start_ns", "end_ns"))
    lengths = dict(zip(found["step"].tolist(), (found["end_ns"] - found["start_ns"]).tolist(), strict=True))
    return np.asarray([max(0.0, lengths.get(step, 0)) for step in timeline.step.tolist()], dtype=np.float64)


def _part(timeline: Timeline, kept: Ints) -> Timeline:
    columns: dict[str, Any] = {
        item.name: getattr(timeline, item.name)[kept] for item in fields(timeline) if item.name != "previous"
    }
    place = np.full(len(timeline) + 1, -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    return Timeline(**columns, previous=place[timeline.previous[kept]])


def _stages(run: Run, timeline: Timeline) -> dict[str, Stage]:
    """The stages of the kept steps, read piece by piece: the table of a long run is large."""
    keys, found = Keys.of(timeline), dict[str, dict[str, Floats]]()
    for piece in run.pieces("stages", ("loader", "epoch", "seq", "scope", "stage", *_STAGE_COLUMNS)):
        rows = keys.find(*(ints(piece[name]) for name in ("loader", "epoch", "seq")))
        mine = (rows >= 0) & (ints(piece["scope"]) == 0)
        names = piece["stage"].combine_chunks()
        if not mine.any():
            continue
        codes, words = np.asarray(names.indices), names.dictionary.to_pylist()
        values = {name: ints(piece[name]) for name in _STAGE_COLUMNS}
        for code, word in enumerate(words):
            of_it = np.flatnonzero(mine & (codes == code))
            if len(of_it):
                part = word.startswith(PART)  # a read of a remote place has its waiting beside it
                stage = READ if part else word
                sums = found.setdefault(stage, {name: np.zeros(len(timeline)) for name in _STAGE_COLUMNS})
                for name in _STAGE_COLUMNS[:1] if part else _STAGE_COLUMNS:
                    sums[name] += _summed(rows[of_it], values[name][of_it], len(timeline))
    return {word: Stage(*(sums[name] for name in _STAGE_COLUMNS)) for word, sums in found.items()}


def _summed(rows: Ints, values: Ints, length: int) -> Floats:
    """Sum per batch; 0 for a batch without this stage, NaN where any of its values was not observed."""
    sums = np.bincount(rows, weights=values, minlength=length).astype(np.float64)
    sums[rows[values == NOT_OBSERVED]] = np.nan
    return sums
