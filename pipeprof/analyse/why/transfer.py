"""A batch's way from its worker to the loop, in its parts: pickling, the pipe, receiving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, Ints, Timeline, read_inside, read_ints


@dataclass(frozen=True, slots=True)
class Transfer:
    """Means over the measured batches; None if not observed."""

    pickling_ns: float | None
    pipe_ns: float | None
    receiving_ns: float | None
    sent_bytes: float | None
    """Size of the pickle, which goes through the pipe."""
    tensor_bytes: float | None
    """Size of the tensors, which the main process maps: they travel outside the pickle."""


@dataclass(frozen=True, slots=True)
class Way:
    """Parts of the way of each measured batch if they were observed: ns and bytes."""

    pickling: Ints
    """From when the worker's queue thread began to pickle a batch until it had written it to the pipe."""
    pipe: Ints
    """From then until the main process began to unpickle it; what lies there unasked for does not count."""
    receiving: Ints
    """Unpickling, with the mapping of its tensors."""
    sent_bytes: Ints
    tensor_bytes: Ints

    def means(self) -> Transfer | None:
        """Return the mean of each part; None if no part of any batch was observed."""
        if not any(map(len, (self.pickling, self.pipe, self.receiving))):
            return None
        parts = (self.pickling, self.pipe, self.receiving, self.sent_bytes, self.tensor_bytes)
        return Transfer(*(float(part.mean()) if len(part) else None for part in parts))


def receive_starts(run: Run) -> Ints:
    """Return, by step, when the main process or its pin thread began to unpickle the batch."""
    return _by_step(run, "receive_start_ns")


def way_of(run: Run, timeline: Timeline, steps: npt.NDArray[np.bool_] | None = None) -> Way:
    """Read the parts of the way of the batches of `steps`; None: of the measured ones that workers made."""
    t = timeline
    mine = t.measured & (t.worker >= 0) if steps is None else steps
    receive_start, sent_bytes = receive_starts(run), _by_step(run, "sent_bytes")
    pinned = np.isin(t.loader, list(t.pin_threads))
    # Without a thread that takes them as they come, batches lie in the pipe until the loop asks.
    asked = np.where(pinned | (t.sent_ns == NOT_OBSERVED), t.sent_ns, np.maximum(t.sent_ns, t.request_ns))
    tensors = read_inside(run, t, ("bytes",))["bytes"]
    return Way(
        _seen(t.pickling_ns[mine]),
        _between(asked[mine], receive_start[mine]),
        _between(receive_start[mine], t.received_ns[mine]),
        _seen(sent_bytes[mine]),
        _seen(tensors[mine]),
    )


def _by_step(run: Run, name: str) -> Ints:
    columns = read_ints(run, "steps", (name, "step"))
    return columns[name][np.argsort(columns["step"], kind="stable")]


def _between(begin: Ints, end: Ints) -> Ints:
    seen = (begin != NOT_OBSERVED) & (end != NOT_OBSERVED)
    return np.asarray(np.maximum((end - begin)[seen], 0))


def _seen(values: Ints) -> Ints:
    return np.asarray(values[values != NOT_OBSERVED])
