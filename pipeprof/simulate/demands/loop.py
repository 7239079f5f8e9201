"""Durations of the activities between a loader and its loop: each after the last of its predecessors."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pipeprof.graph import Event
from pipeprof.simulate.demands.read import Floats, Recorded
from pipeprof.timeline import NOT_OBSERVED, Bools, Timeline

MASKED_SHARE: Final = 0.02
"""Share of a loop's waits that a device works through, from which it is seen to run behind."""
PICKLING: Final = 1.0
RECEIVING: Final = 2.0
"""Steps of a batch's way that wait for the lock of its worker; values of `Activities.locked`."""


class Activities(NamedTuple):
    """Durations in ns, one entry a step. What was not observed takes the others' median."""

    handover: Floats
    handover_away: Floats
    """Time of it in which nothing worked: for a lock, or to be woken up."""
    transfer: Floats
    locked: Floats
    pin: Floats
    receive: Floats
    receive_away: Floats
    copy: Floats
    submit: Floats
    compute: Floats
    loop: Floats

    def on_cores(self, share: float, handover_cpu: Floats, receive_cpu: Floats) -> Activities:
        """Shorten what the CPU does to the `share` of the time in which it had a core, and split off the time
        in which it did nothing, if the CPU time is known.

        Not so a device, nor the way of a batch, which is time and no work: the thread that sends it waits for
        its worker's interpreter lock, which the next batch's decoding gives up every 5 ms.
        """
        handover, handover_away = _split(self.handover, share, handover_cpu)
        receive, receive_away = _split(self.receive, share, receive_cpu)
        return self._replace(
            handover=handover,
            handover_away=handover_away,
            receive=receive,
            receive_away=receive_away,
            submit=self.submit * share,
            loop=self.loop * share,
        )


def activities(recorded: Recorded) -> Activities:
    """Read off a run what passes along the edges of its graph."""
    handover = recorded.after[Event.START].copy()
    if recorded.shape.workers:
        handover[recorded.timeline.previous < 0] = np.nan  # a worker's first batch: start-up
    else:
        handover += recorded.after[Event.DISPATCH]  # all of `next` that comes before the making
    device = _device(recorded) if recorded.timeline.device_observed else _body(recorded)
    transfer, locked, pin, receive = _way(recorded)
    nothing = np.zeros(len(recorded))
    return Activities(filled(handover), nothing, transfer, locked, pin, receive, nothing, *device)


def _split(lasted: Floats, share: float, cpu: Floats) -> tuple[Floats, Floats]:
    """Split time into work and waiting for others by its CPU time.

    If it was not observed, as in unprobed steps, as much is work as usually is; all of it if it never was
    observed. Work takes the longer, the smaller the `share` of the time in which it has a core.
    """
    most, seen = lasted * share, ~np.isnan(cpu)
    worked = np.clip(cpu, 0.0, most)
    usual = np.median(worked[seen]) if seen.any() else np.inf
    work = np.where(seen, worked, np.minimum(usual, most))
    return work, np.maximum(lasted - work / share, 0.0) if share else lasted


def runs_behind(timeline: Timeline) -> bool:
    """Return whether a device without times of its own was seen to work while the loop waited for batches."""
    seen = timeline.device_wait_ns != NOT_OBSERVED
    masked = timeline.masked_wait_ns[seen].sum()
    return bool(not timeline.device_observed and masked > MASKED_SHARE * timeline.wait_ns[seen].sum())


def filled(values: Floats) -> Floats:
    """Replace what was not observed by the median of the rest."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), np.median(known) if len(known) else 0.0, values)


def _device(recorded: Recorded) -> tuple[Floats, Floats, Floats, Floats]:
    """Return copy, submit, compute and loop if the device's own times were observed."""
    timeline, after = recorded.timeline, recorded.after
    copied = timeline.copy_end_ns != NOT_OBSERVED
    computed = timeline.compute_end_ns != NOT_OBSERVED
    copy = np.where(copied, after[Event.COPY], 0.0)
    compute = np.where(computed, after[Event.COMPUTE], np.nan)
    met = np.append(0.0, recorded.met[:-1])
    loop = np.maximum(after[Event.REQUEST] - met, 0.0)
    loop[~_follows(timeline)] = np.nan
    # of a step is what the loop does after it
    loop = np.append(loop[1:], np.nan)
    return copy, filled(after[Event.LAUNCH]), filled(compute), filled(loop)


def _body(recorded: Recorded) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the same four without a device clock: between take and request all is the accelerator's.

    Less what is the loop's own work. If the device was seen to work on while the loop waited, the body is
    what the host does with a step, and the device's part is taken from the waits.
    """
    timeline, nothing = recorded.timeline, np.zeros(len(recorded))
    body = np.maximum((timeline.step_end_ns - timeline.take_ns).astype(np.float64) - recorded.met, 0.0)
    body[-1:] = np.nan
    body[:-1][~_follows(timeline)[1:]] = np.nan
    body = filled(body)
    own = np.minimum(recorded.own_work, body)
    if runs_behind(timeline):
        return nothing, body - own, _work_behind(timeline), own
    return nothing, nothing, body - own, own


def _work_behind(timeline: Timeline) -> Floats:
    """Work of a device that is behind its host: all steps between two times at which it ran out take alike.

    It runs out `device_wait_ns` before a batch is taken.
    """
    idle = np.maximum(timeline.device_wait_ns, 0)
    last = np.flatnonzero(np.append(idle[1:] > 0, True))
    first = np.append(0, last[:-1] + 1)
    out = np.append(timeline.take_ns[1:] - idle[1:], timeline.step_end_ns[-1])
    work = np.maximum(out[last] - timeline.take_ns[first], 0) / (last - first + 1)
    return np.repeat(work, last - first + 1)


def _follows(timeline: Timeline) -> Bools:
    """Return True if the step before is of the same pass."""
    return np.append(False, np.diff(timeline.step) == 1) & ~timeline.epoch_first


def _way(recorded: Recorded) -> tuple[Floats, Floats, Floats, Floats]:
    """Split a batch's way from its worker to the loop: transfer, locked, pin, and the cost of taking it."""
    timeline, nothing = recorded.timeline, np.zeros(len(recorded))
    if recorded.shape.workers == 0:
        return nothing, nothing, nothing, filled(recorded.after[Event.TAKE])
    seen, locked = timeline.sent_ns != NOT_OBSERVED, ~np.isnan(recorded.unlocked_ns)
    sent = np.where(seen, np.maximum(timeline.sent_ns, timeline.finish_ns), timeline.finish_ns)
    # what waited for the lock of its worker to be pickled left when that was free
    unlocked = np.nan_to_num(recorded.unlocked_ns)
    left = np.where(unlocked <= sent, np.maximum(unlocked, timeline.finish_ns), timeline.finish_ns)
    waits = np.where(locked & recorded.held, np.where(unlocked <= sent, PICKLING, RECEIVING), 0.0)
    # a native call that ended within the making held it up for that long, whatever the rest of it takes
    left = np.where(locked & ~recorded.held, timeline.finish_ns, left)
    came = np.where(locked & ~recorded.held, np.maximum(sent, unlocked), sent)
    transfer = np.where(seen, came - left, np.nan)
    if recorded.shape.pin_memory:
        return np.nan_to_num(transfer), waits, *_pinned(recorded)
    if seen.any():
        there = np.maximum(timeline.request_ns, np.maximum(sent, unlocked))
        receive = np.maximum(timeline.take_ns - there, 0)
        return filled(transfer), waits, nothing, receive
    way, receive = _hand_over(recorded)
    return np.full(len(recorded), way), nothing, nothing, receive


def _pinned(recorded: Recorded) -> tuple[Floats, Floats]:
    """Return what a pin thread does with each batch, and the main process with one that is there.

    Only of batches that were waited for it is known when they were pinned; they take the others' receiving.
    """
    timeline = recorded.timeline
    taken, there = recorded.after[Event.TAKE], timeline.available_ns < timeline.take_ns
    receive = float(np.median(taken[there])) if there.any() else 0.0
    pin = np.where(there, np.nan, np.maximum(recorded.after[Event.AVAILABLE] - receive, 0.0))
    return filled(pin), np.where(there, taken, np.minimum(receive, recorded.after[Event.AVAILABLE]))


def _hand_over(recorded: Recorded) -> tuple[float, Floats]:
    """Split take - max(request, finish) into the way there and the main process's part.

    A batch that lay ready at its request shows what receiving costs; one that was waited for shows both. If
    none lay ready, or none was waited for, the way is what the worker's other threads used. A worker's first
    batch opens connections that its others find open, and is left out, as is the warm-up.
    """
    timeline = recorded.timeline
    taken = np.maximum(timeline.take_ns - np.maximum(timeline.request_ns, timeline.finish_ns), 0)
    usual = (timeline.previous >= 0) & timeline.measured
    waited = timeline.ready == 0
    late, there = waited & usual, ~waited & usual
    if late.any() and there.any():
        way = max(0.0, float(np.median(taken[late])) - _received(timeline, taken.astype(np.float64), there))
    else:
        way = float(np.median(np.minimum(np.nan_to_num(recorded.helper_cpu), taken)))
    return way, np.where(waited, np.maximum(taken - way, 0.0), taken.astype(np.float64))


def _received(timeline: Timeline, taken: Floats, there: Bools) -> float:
    """Return what taking costs of batches that are `there`: those that were finished before the loop had even
    asked for the one before, if any were."""
    asked_before = np.append(timeline.request_ns[:1], timeline.request_ns[:-1])
    long_ago = there & (timeline.finish_ns < asked_before)
    return float(np.median(taken[long_ago])) if long_ago.any() else float(taken[there].min())
