"""Records what is known of a batch that a worker could not make or hand over.

The worker writes the first such loss into its slot of the ring, where it stays whatever happens to the
worker. A batch that finds no room in shared memory as it is handed over is lost forever: the worker's queue
thread drops it with a traceback, and the loop waits.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import torch

from pipeprof import units
from pipeprof.measure.host.mounts import SHARED_MEMORY, shared_memory_bytes
from pipeprof.measure.probe.own_frames import OWN
from pipeprof.measure.probe.ring import LOSS_BYTES
from pipeprof.measure.probe.spans import COLLATE
from pipeprof.vocabulary import mechanisms

HANDOVER: Final = "handover"
NO_ROOM: Final = re.compile(
    r"(?:</torch_|/dev/shm|shared memory)[^\n]*No space left|No space left[^\n]*/dev/shm"
    r"|is killed by signal: Bus error"
)
"""Texts of torch's and the system's errors if a batch finds no room in shared memory."""
_MOST_SAMPLES: Final = 8
_MOST_CHARACTERS: Final = 160
"""Of an error's first line, and of a path its end."""
_TORCH: Final = f"{Path(torch.__file__).parent}/"
_ASKING: Final = ("_utils/fetch.py", "probe/proxies.py", "attach/proxies.py")
"""Files whose functions ask the data set for a sample, by `idx` or `index`."""

Place = tuple[str, int, str]
"""File, line, function."""


class Loss(NamedTuple):
    """A batch that was lost."""

    epoch: int
    seq: int
    stage: str
    """Stage that it was lost in, or `HANDOVER`."""
    error: str
    """First line."""
    samples: tuple[int, ...] | None
    """The first indices that it was to be made of; None if there are none, or if they are not numbers."""
    total: int
    """Number of all of them."""
    sample: int | None
    """Index that failed, if a sample did."""
    place: Place | None
    """Where the error was raised; None if no code of the batch's making ran."""
    users: Place | None
    """Innermost place outside of torch."""
    collate: Place | None
    """The collate function of a batch that was handed over."""
    room: tuple[int, int] | None
    """Bytes that were free in shared memory, and its size, if that had no room."""

    def sentence(self) -> str:
        """Return it as a sentence without its subject, the worker."""
        what = f"lost batch {self.seq} of epoch {self.epoch}{self._of_samples()} {self._when()}: {self.error}"
        if self.room is None:
            return f"{what}; {self._where()}"
        return f"{what}; {self._where()}; {no_room(self.room)}"

    def _of_samples(self) -> str:
        if self.sample is not None:
            return f", at sample {self.sample}"
        if self.samples is None:
            return " (its samples have no indices)"
        more = ", ..." if self.total > len(self.samples) else ""
        listed = ", ".join(map(str, self.samples))
        return f" ({units.plural(self.total, 'sample')}: {listed}{more})"

    def _when(self) -> str:
        if self.stage == HANDOVER:
            return "as it was handed over, and the loop will wait for it"
        return "as it was collated" if self.stage == COLLATE else "as its samples were fetched"

    def _where(self) -> str:
        if self.place is not None:
            torchs = "" if self.users in (None, self.place) else f", called at {_text_of(self.users)}"
            return f"at {_text_of(self.place)}{torchs}"
        collated = "" if self.collate is None else f", {_text_of(self.collate)},"
        when = f"after the collate function{collated} has ended"
        return f"its line is not observed: torch's queue thread copies it {when}"


def no_room(room: tuple[int, int] | None = None) -> str:
    """Say what room shared memory had, or has now, and what to do."""
    had = shared_memory_bytes() if room is None else room
    free, whole = ("unknown", "unknown") if had is None else (units.size(had[0]), units.size(had[1]))
    return f"{SHARED_MEMORY} had {free} of {whole} free: {mechanisms.MORE_SHARED_MEMORY}"


def _text_of(place: Place | None) -> str:
    return "" if place is None else f"{place[0]}:{place[1]} in {place[2]}"


def in_making(key: tuple[int, int], stage: str, asked: Any, error: BaseException) -> Loss:
    """Return the loss of a batch whose sample or collation has raised `error`.

    The traceback's first frame is the caller's, which still runs.
    """
    caller = error.__traceback__
    frames, sample = _frames(None if caller is None else caller.tb_next)
    users = [frame for frame in frames if not frame[0].startswith(_TORCH)]
    failed = None if stage == COLLATE else sample
    innermost = frames[-1] if frames else None
    return _loss(key, stage, asked, error, failed, innermost, users[-1] if users else None, None)


def in_handover(key: tuple[int, int], asked: Any, collate: Any, error: BaseException) -> Loss:
    """Return the loss of a batch that was made, and that the worker's queue could not pickle."""
    return _loss(key, HANDOVER, asked, error, None, None, None, _place_of(collate))


def _loss(
    key: tuple[int, int],
    stage: str,
    asked: Any,
    error: BaseException,
    sample: int | None,
    place: Place | None,
    users: Place | None,
    collate: Place | None,
) -> Loss:
    samples, count = _indices(asked)
    text = f"{type(error).__name__}: {error}"
    room = shared_memory_bytes() if NO_ROOM.search(text) else None
    first = (text.splitlines() or [""])[0][:_MOST_CHARACTERS]
    return Loss(*key, stage, first, samples, count, sample, place, users, collate, room)


def _indices(asked: Any) -> tuple[tuple[int, ...] | None, int]:
    with suppress(Exception):  # they are the user's sampler's
        one = isinstance(asked, (str, bytes)) or not hasattr(asked, "__iter__")
        all_of_it = [asked] if one else list(asked)
        return tuple(map(operator.index, all_of_it[:_MOST_SAMPLES])), len(all_of_it)
    return None, 0


def _frames(trace: TracebackType | None) -> tuple[list[Place], int | None]:
    """Return the frames of a traceback that are not ours, outermost first, and the index of the sample.

    Local names are read only from frames that ask for samples: a frame that holds its error would keep it.
    """
    frames, sample = [], None
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.endswith(_ASKING):
            names = trace.tb_frame.f_locals
            index = names.get("idx", names.get("index"))
            sample = index if isinstance(index, int) else sample
        if not code.co_filename.startswith(OWN):
            frames.append(_cut(code.co_filename, trace.tb_lineno, code.co_qualname))
        trace = trace.tb_next
    return frames, sample


def _place_of(function: Any) -> Place | None:
    """Return where a function, or an object that is called as one, begins; None if it is not Python."""
    with suppress(Exception):
        while isinstance(function, functools.partial):
            function = function.func
        function = inspect.unwrap(function)
        code = getattr(function, "__code__", None) or type(function).__call__.__code__
        return _cut(code.co_filename, code.co_firstlineno, code.co_qualname)
    return None


def _cut(file: str, line: int, function: str) -> Place:
    return file[-_MOST_CHARACTERS:], line, function[-_MOST_CHARACTERS // 2 :]


def pack(loss: Loss) -> bytes:
    """Return a loss as bytes that a slot of the ring can hold: what is too long without its texts' rest."""
    most = _MOST_CHARACTERS
    while len(packed := _as_json(loss, most)) > LOSS_BYTES and most > 1:
        most //= 2
    return packed


def _as_json(loss: Loss, most: int) -> bytes:
    place, users, collate = (_shorter(each, most) for each in (loss.place, loss.users, loss.collate))
    shorter = loss._replace(error=loss.error[:most], place=place, users=users, collate=collate)
    return json.dumps(shorter, ensure_ascii=False).encode(errors="replace")


def _shorter(place: Place | None, most: int) -> Place | None:
    return None if place is None else (place[0][-most:], place[1], place[2][-most:])


def unpack(data: bytes) -> Loss | None:
    """Return the loss that was packed; None for one that was cut off."""
    with suppress(ValueError, TypeError):
        epoch, seq, stage, error, samples, total, sample, place, users, collate, room = json.loads(data)
        indices = None if samples is None else tuple(samples)
        raised, user, made_by = (_as_place(each) for each in (place, users, collate))
        had = None if room is None else (room[0], room[1])
        return Loss(epoch, seq, stage, error, indices, total, sample, raised, user, made_by, had)
    return None


def _as_place(packed: list[Any] | None) -> Place | None:
    return None if packed is None else (packed[0], packed[1], packed[2])


def telling(on_error: Callable[[Any, Any], Any], lose: Callable[[Loss], None], kind: type[Any]) -> Any:
    """Return a queue's handler of its thread's errors that first reports a lost batch of class `kind`."""

    def handle(error: Any, message: Any) -> Any:
        with suppress(Exception):
            batch = message[1]
            batch = batch[0] if isinstance(batch, tuple) else batch  # torchdata's: with worker and state
            if isinstance(batch, kind):
                lose(in_handover(batch.key, batch.asked, batch.collate, error))
        return on_error(error, message)

    return handle
