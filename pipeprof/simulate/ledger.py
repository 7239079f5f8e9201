"""Ledger of a simulated run: attribution, over a timeline that has not happened."""

from __future__ import annotations

import numpy as np

from pipeprof.analyse.ledger.assign import Breaks
from pipeprof.analyse.ledger.attribution import Ledger, OwnWork, tilings_of
from pipeprof.analyse.ledger.making import Making
from pipeprof.passes import Spans, Window
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.read import Floats
from pipeprof.simulate.engine import shape_of
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.sampling import Draw, away_by_owner, cpu_by_owner
from pipeprof.timeline import Ints, Timeline
from pipeprof.vocabulary import owners


def predicted_ledger(
    demands: Demands, knobs: Knobs, draw: Draw, timeline: Timeline, window: Window, reading_ns: Floats
) -> Ledger:
    """Return the ledger of a simulated run. `reading_ns` is each batch's wait for the storage device."""
    made = timeline.epoch * draw.batches_per_epoch + timeline.seq
    making = _making(demands, knobs, draw, made, timeline, reading_ns)
    breaks = Breaks(timeline.startups, _meetings(draw, made, timeline), timeline.entries)
    body = None if timeline.device_observed else np.asarray(draw.loop)[made]
    own_work, shapes = OwnWork(body, demands.sampler_ns), {0: shape_of(knobs, draw)}
    return tilings_of(timeline, shapes, window, making, breaks, own_work).ledger(window)


def _meetings(draw: Draw, made: Ints, timeline: Timeline) -> Spans:
    """Return the spans in which the loop met the other ranks of the recorded job."""
    met = np.rint(np.asarray(draw.met)[made])
    there = met > 0
    began = timeline.launch_ns[there]
    return began, began + met[there].astype(np.int64)


def _making(
    demands: Demands, knobs: Knobs, draw: Draw, made: Ints, timeline: Timeline, reading_ns: Floats
) -> Making:
    """Return the parts of each batch's making; what is left of its wall waited for a core."""
    rows, making = draw.rows[made], Making(np.zeros(len(made)))
    for owner, ns in cpu_by_owner(demands, knobs).items():
        making.add_cpu(owner, ns[rows])
    for owner, ns in away_by_owner(demands, knobs).items():
        making.add_away(owner, ns[rows])
    network = knobs.storage.tier == "network"
    making.add_away(owners.STORAGE_NETWORK if network else owners.STORAGE_DEVICE, reading_ns)
    making.runq = np.maximum(timeline.finish_ns - timeline.start_ns - making.wall, 0.0)
    return making
