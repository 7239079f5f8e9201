"""How long the activities between a loader and its loop took: each after the last of its predecessors."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.pipeline import NOT_OBSERVED, Ints, Timeline
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.recorded import Floats

HOST: Final = ("handover", "receive", "submit", "loop")
"""What the CPU does, and not a device; nor a lock, as in `transfer`: the thread that sends a batch waits for
its worker's interpreter lock, which the next batch's decoding gives up every 5 ms."""
LONG_AGO_NS: Final = 5_000_000
"""A batch that was finished so long before its request had arrived by then."""


def elapsed(
    timeline: Timeline, helper: Floats, met: Floats, knobs: Knobs, on_core: float = 1.0
) -> dict[str, Floats]:
    """Durations in ns, one entry a step, of hand-over, transfer, receiving, copy, submit, compute, loop.

    `helper` is the CPU time of the workers' other threads; `met` how long the loop met the other ranks after
    each step, which is none of its own Python; `on_core` the share of the time in which something was
    runnable and had a core, by which the host's own activities are shortened. What was not observed takes the
    others' median.
    """
    previous_finish = np.where(timeline.previous >= 0, timeline.finish_ns[timeline.previous], NOT_OBSERVED)
    handover = _after(timeline.start_ns, timeline.dispatch_ns, previous_finish)
    handover[timeline.previous < 0] = np.nan  # a worker's first batch: start-up
    taken = _after(timeline.take_ns, timeline.request_ns, timeline.finish_ns)
    receive, transfer = _hand_over(timeline, taken, helper, knobs)
    device = _device(timeline, knobs, met) if _device_observed(timeline) else _loop_body(timeline, met)
    found = {"handover": _filled(handover), "receive": receive, "transfer": transfer, **device}
    return {name: values * on_core if name in HOST else values for name, values in found.items()}


def _device_observed(timeline: Timeline) -> bool:
    return bool((timeline.compute_end_ns != NOT_OBSERVED).any())


def _device(timeline: Timeline, knobs: Knobs, met: Floats) -> dict[str, Floats]:
    known = timeline.compute_end_ns != NOT_OBSERVED
    copy_end = np.maximum(timeline.copy_end_ns, timeline.take_ns)
    full = _earlier(timeline.compute_end_ns, 0 if knobs.synchronises else knobs.queue_depth)
    submit = _after(timeline.launch_ns, timeline.take_ns if knobs.pin_memory else copy_end, full)
    loop = _after(timeline.request_ns, _earlier(timeline.launch_ns, 1))
    loop[1:] = np.maximum(loop[1:] - met[:-1], 0.0)
    loop[~_follows(timeline)] = np.nan
    copy = np.where(timeline.copy_end_ns == NOT_OBSERVED, 0, timeline.copy_end_ns - timeline.copy_start_ns)
    compute = np.where(known, timeline.compute_end_ns - timeline.compute_start_ns, np.nan)
    return {
        "copy": copy.astype(np.float64),
        "submit": _filled(submit),
        "compute": _filled(compute),
        "loop": _filled(loop),
    }


def _loop_body(timeline: Timeline, met: Floats) -> dict[str, Floats]:
    """No device clock: all between taking a batch and asking for the next is the accelerator's."""
    nothing = np.zeros(len(timeline))
    body = np.append((timeline.request_ns[1:] - timeline.take_ns[:-1]).astype(np.float64), np.nan)
    body = np.maximum(body - met, 0.0)
    body[:-1][~_follows(timeline)[1:]] = np.nan
    return {"copy": nothing, "submit": nothing, "compute": _filled(body), "loop": nothing}


def _follows(timeline: Timeline) -> npt.NDArray[np.bool_]:
    """The step before is of the same epoch."""
    same = np.zeros(len(timeline), dtype=np.bool_)
    same[1:] = (np.diff(timeline.epoch) == 0) & (np.diff(timeline.step) == 1)
    return same


def _earlier(times: Ints, by: int) -> Ints:
    return np.concatenate([np.full(min(by, len(times)), NOT_OBSERVED), times[: max(0, len(times) - by)]])


def _after(time: Ints, *before: Ints) -> Floats:
    last = before[0]
    for other in before[1:]:
        last = np.maximum(last, other)
    return np.where(time == NOT_OBSERVED, np.nan, np.maximum(time - last, 0).astype(np.float64))


def _filled(values: Floats) -> Floats:
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), np.median(known) if len(known) else 0.0, values)


def _hand_over(timeline: Timeline, taken: Floats, helper: Floats, knobs: Knobs) -> tuple[Floats, Floats]:
    """Split take - max(request, finish) into the main process's part and the way there.

    A batch that lay ready at its request shows what receiving costs; one that was waited for shows both.
    Where none lay ready, or none was waited for, the way is what the worker's other threads used. A worker's
    first batch opens connections that its others find open, and is left out, as is the warm-up.
    """
    if knobs.workers == 0:
        return _filled(taken), np.zeros(len(taken))
    usual = (timeline.previous >= 0) & ~timeline.warmup
    waited = timeline.finish_ns > timeline.request_ns
    late, there = waited & usual, ~waited & usual
    if late.any() and there.any():
        way = max(0.0, float(np.median(taken[late])) - _received(timeline, taken, there))
    else:
        way = float(np.median(np.minimum(helper, taken)))
    return np.where(waited, np.maximum(taken - way, 0.0), taken), np.full(len(taken), way)


def _received(timeline: Timeline, taken: Floats, there: npt.NDArray[np.bool_]) -> float:
    """What taking costs of the batches that are `there`: of those that arrived long ago, if any did."""
    long_ago = there & (timeline.finish_ns + LONG_AGO_NS < timeline.request_ns)
    return float(np.median(taken[long_ago])) if long_ago.any() else float(taken[there].min())
