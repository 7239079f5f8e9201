"""Times a batch's way from its worker to the main process, by what its own pickle carries.

torch pickles each batch in the worker's queue thread and unpickles it in the main process (or its pin
thread). `Handed` stands for the batch in that queue: pickling it writes down when pickling began, unpickling
it calls the clock before and after the batch is rebuilt, and what comes out is the batch itself. The loop
never sees the stand-in. The worker's next batch carries the time at which the queue thread had written this
one.

Both ends need the worker's GIL if tensors travel by file descriptor, since a thread of the worker hands the
descriptors out: an unpickling that is long for its run points to a worker that held it.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from multiprocessing.reduction import ForkingPickler
from struct import Struct
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from pipeprof.measure.probe.counting.losses import Loss, telling
from pipeprof.record.schema import MISSING

MOST_KEPT: Final = 65_536
"""Handovers kept per iterator until the flush thread takes them; the oldest go first."""
PRIVATE_OF_WORKERS: Final = ("data_queue", "_send_bytes", "_thread", "_on_queue_feeder_error")
"""torch's name for a worker's queue of results, a local of its loop, and multiprocessing's for the writing
end and the thread of that queue, and for what that thread calls with a batch that it cannot pickle. Without
them the time at which a batch had been sent, and its loss, are not observed."""
_WAY: Final = Struct("<8q")
"""Epoch, seq, pickled_ns, and `Handover.sent`: bytes are pickled more quickly than eight numbers."""
_pack_way: Final = _WAY.pack
_NOTHING_SENT: Final = (MISSING,) * 5
_NO_KEY: Final = (MISSING, MISSING)
_END_OF_BATCH: Final = b"\0pipeprof: the batch ends, the state of its data set follows\0"
"""Stands in a pickle between a batch and the state that travels with it: its position gives their sizes."""


class Handover(NamedTuple):
    """The times of one batch's way, `CLOCK_MONOTONIC` in nanoseconds."""

    epoch: int
    seq: int
    pickled_ns: int
    """The worker's queue thread began to pickle it."""
    receive_start_ns: int
    """The main process began to unpickle it."""
    received_ns: int
    """The main process had it."""
    sent: tuple[int, ...]
    """Previous batch that the worker sent: epoch, seq, time at which it was written, bytes of its pickle, and
    of these the bytes behind the batch: the data set's state."""


Way = tuple[int, int, int, int, int, int]
"""pickled_ns, sent_ns, bytes of the pickle, of these the state's, receive_start_ns, received_ns; `MISSING` if
not observed."""
UNSEEN_WAY: Final = (MISSING,) * 6

Arrived = tuple[bytes, int, int]
"""What its worker recorded of a batch's way, and when the main process began and ended to unpickle it."""
_inboxes: Final[dict[int, deque[Arrived]]] = {}
"""By the number of an iterator's observation, in the process that receives."""


def open_inbox(number: int) -> deque[Arrived]:
    """Keep the handovers of the iterator `number` in this process, until `close_inbox`."""
    return _inboxes.setdefault(number, deque(maxlen=MOST_KEPT))


def close_inbox(number: int) -> None:
    """Forget the handovers of the iterator `number`; later ones are not kept."""
    _inboxes.pop(number, None)


class _Sending:
    """Batch that this worker sent last, and the one that it sends."""

    __slots__ = ("carries", "key", "sent")

    def __init__(self) -> None:
        self.sent: tuple[int, int, int, int, int] = _NOTHING_SENT
        self.key = _NO_KEY
        """Epoch and seq of what is being sent."""
        self.carries = False
        """True if a state of the data set is sent with it."""


_sending: Final = _Sending()
_with_state: Final = set[tuple[int, int]]()
"""Epoch and seq of this worker's batches that are to be sent with a state of the data set."""


def forget_sending() -> None:
    """Forget what was pickled last: this process sends nothing, and those that it forks begin anew."""
    _sending.key = _NO_KEY


def note_state(epoch: int, seq: int) -> None:
    """Note that the data set's state was taken, to travel with a batch of this worker."""
    _with_state.add((epoch, seq))


class Handed:
    """A finished batch on its way into the worker's queue."""

    __slots__ = ("asked", "batch", "collate", "key", "number")

    def __init__(
        self, number: int, key: tuple[int, int], batch: Any, asked: Any = None, collate: Any = None
    ) -> None:
        self.number, self.key, self.batch = number, key, batch
        self.asked, self.collate = asked, collate  # of a batch that cannot be pickled

    def __reduce__(self) -> Any:
        return _reduced(self)


class _Receiving:
    """Pickles as a call of the clock, which the unpickling of the batch follows, and stands for its end."""

    __slots__ = ("way",)

    def __init__(self, way: tuple[int, bytes]) -> None:
        self.way = way

    def __call__(self, *parts: Any) -> Any:  # pickle asks for something to call
        raise NotImplementedError

    def __reduce__(self) -> Any:
        return _begin, self.way


def _reduced(handed: Handed) -> Any:
    """Return a batch as pickle takes it: first the way so far, then the batch, and what stands behind it."""
    key, sending = handed.key, _sending
    receiving = _Receiving((handed.number, _pack_way(*key, monotonic_ns(), *sending.sent)))
    sending.key = key
    if _with_state and key in _with_state:
        _with_state.discard(key)
        sending.carries = True
        return receiving, (handed.batch, _END_OF_BATCH)
    return receiving, (handed.batch,)


# The pickler of queues looks for types that it does not know in slow ways.
ForkingPickler.register(Handed, _reduced)
ForkingPickler.register(_Receiving, _Receiving.__reduce__)


def _begin(number: int, way: bytes) -> Callable[..., Any]:
    """Take the time at which unpickling began; return what the batch is given to."""
    return partial(_received, number, way, monotonic_ns())


def _received(number: int, way: bytes, start_ns: int, batch: Any, end_of_batch: bytes = b"") -> Any:
    """Return the batch as torch would have received it, and keep the times of its way."""
    inbox = _inboxes.get(number)
    if inbox is not None:
        inbox.append((way, start_ns, monotonic_ns()))
    return batch


def read(arrived: Arrived) -> Handover:
    """Return what is known of a batch's way when it has come."""
    way, start_ns, received_ns = arrived
    epoch, seq, pickled_ns, *sent = _WAY.unpack(way)
    return Handover(epoch, seq, pickled_ns, start_ns, received_ns, tuple(sent))


def watch_sending(lose: Callable[[Loss], None] = lambda loss: None) -> bool:
    """Put a clock around the pipe of this worker's queue, before its first batch. False if there is none.

    `lose` is called with a batch that the queue's thread cannot pickle.
    """
    frame = sys._getframe()
    while frame is not None and "data_queue" not in frame.f_locals:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return False
    queue = frame.f_locals["data_queue"]
    # A thread that runs has its own reference to the writing end.
    if getattr(queue, "_thread", queue) is not None or not hasattr(queue, "_send_bytes"):
        return False
    queue._send_bytes = _timed(queue._send_bytes)
    if hasattr(queue, "_on_queue_feeder_error"):
        queue._on_queue_feeder_error = telling(queue._on_queue_feeder_error, lose, Handed)
    return True


def _timed(send_bytes: Callable[..., Any]) -> Callable[..., Any]:
    """Put a clock behind the writing of a pickle. Only the queue's thread calls it."""

    sending = _sending

    def send(data: Any, *arguments: Any) -> Any:
        result = send_bytes(data, *arguments)
        now_ns, state = monotonic_ns(), MISSING
        if sending.carries:
            state, sending.carries = _bytes_behind_batch(data), False
        sending.sent = (*sending.key, now_ns, len(data), state)
        sending.key = _NO_KEY
        return result

    return send


def _bytes_behind_batch(data: Any) -> int:
    found = _END.search(data)
    return MISSING if found is None else len(data) - found.end()


_END: Final = re.compile(re.escape(_END_OF_BATCH))
