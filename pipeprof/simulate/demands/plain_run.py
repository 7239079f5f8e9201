"""Takes pipeprof's own cost off the demands of a run: a prediction is of the run without pipeprof.

Threads that write and sample work alongside the loop, on cores that it then lacks. A replay, which is held
against the traced run, keeps all of it; so do predictions of a bench, whose other cells are observed too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from pipeprof import units
from pipeprof.simulate.demands.loader import Batches, Demands
from pipeprof.simulate.demands.observing import OwnCostOfBatch
from pipeprof.simulate.demands.read import Floats
from pipeprof.simulate.extrapolation import Extrapolation

SENDING: Final = 0.5
"""Share of the cost of the times in a batch's pickle that its worker's queue thread bears: the rest is the
main process's."""
BETWEEN: Final = 0.5
"""Share of what a batch costs its maker that lies between two batches, and in no stage of one."""
WORTH_SAYING: Final = 0.001
"""Share of the work with a batch from which the cost is mentioned."""


def without_own_cost(demands: Demands) -> Demands:
    """Return the demands of the same run without pipeprof; the same ones if its cost is not known."""
    own = demands.own_cost
    if own is None:
        return demands
    with_cost = demands.batches
    sent, received = own.handover_ns * SENDING, own.handover_ns * (1 - SENDING)
    lighter = {
        **_making_without(with_cost, own.making_ns),
        **_loop_without(demands, own.loop_ns, received),
        "transfer": np.maximum(with_cost.transfer - sent, 0.0),
        "helper": np.maximum(with_cost.helper - sent - own.sampling_ns, 0.0),
        "recording": np.zeros(len(with_cost)),
    }
    return replace(
        demands,
        batches=replace(with_cost, **lighter),
        own_cost=None,
        taken_off_ns=own.serial_ns,
        own_error_ns=own.error_ns,
        notes=(*demands.notes, *_said(demands, own)),
        if_full=None if demands.if_full is None else without_own_cost(demands.if_full),
    )


def _making_without(batches: Batches, cost_ns: Floats) -> dict[str, Any]:
    """Take a cost off what the thread that makes batches does: off what is between two of them, where the
    record is written, and off the making, each owner of it alike."""
    between = np.minimum(cost_ns * BETWEEN, batches.handover)
    made, rest = batches.make_cpu, cost_ns - between
    kept = 1.0 - np.minimum(1.0, np.divide(rest, made, out=np.zeros(len(made)), where=made > 0))
    return {
        "handover": batches.handover - between,
        "cpu": {owner: ns * kept for owner, ns in batches.cpu.items()},
    }


def _loop_without(demands: Demands, cost_ns: Floats, received_ns: float) -> dict[str, Floats]:
    """Take costs off what the loop's thread does: that of the times in a batch's pickle off receiving it, and
    the rest, which lies between two calls of `next`, off the body first."""
    batches = demands.batches
    lighter = _serial_without(batches, (*_body(demands), "receive"), cost_ns)
    lighter["receive"] = np.maximum(lighter["receive"] - received_ns, 0.0)
    if "compute" in lighter:  # the thread did not sleep meanwhile
        worked_ns = batches.compute - lighter["compute"]
        lighter["body_cpu"] = np.maximum(batches.body_cpu - worked_ns, 0.0)
    return lighter


def _serial_without(batches: Batches, names: tuple[str, ...], cost_ns: Floats) -> dict[str, Floats]:
    """Take a cost off activities that follow one another, off the first as far as it goes."""
    lighter, rest = {}, cost_ns
    for name in names:
        before: Floats = getattr(batches, name)
        lighter[name] = np.maximum(before - rest, 0.0)
        rest = rest - (before - lighter[name])
    return lighter


def _body(demands: Demands) -> tuple[str, ...]:
    """Return the activities of the loop's body that its thread does: what a device computes is in none of
    them, where the host's part is known."""
    known = demands.observed.device or demands.batches.submit.any()
    return ("loop", "submit") if known else ("loop", "submit", "compute")


def _said(demands: Demands, own: OwnCostOfBatch) -> tuple[Extrapolation, ...]:
    """Return the note on what is taken off, as a share of a batch's work; none if it is too little."""
    batches = demands.batches
    work = batches.make_cpu + batches.handover + batches.receive + batches.loop + batches.submit
    share = own.serial_ns / max(float(work.mean()), own.serial_ns, 1.0)
    if share < WORTH_SAYING:
        return ()
    how = "measured in the run" if own.measured else "by a model, as the run is too short to measure it"
    return (
        Extrapolation(
            f"predicted is the run without pipeprof, whose own cost is taken off: {units.percent(share)} of "
            f"the host's work with a batch, {how}"
        ),
    )
