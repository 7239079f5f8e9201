"""Transport of records out of a worker: a ring in shared memory, one slot a worker, records of one size.

The worker writes a record before it counts it, so that what is counted is whole, up to the instant of a
SIGKILL; each record also carries its number at both ends, because some CPUs reorder stores. The main process
drains in bulk. A full slot drops and counts what it drops: it never waits and never overwrites.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.measure.probe.layout import (
    ANY_RECORD,
    BATCH,
    COUNTER,
    FILE,
    NODE,
    RECORD_BYTES,
    SAMPLES,
    SHARD,
    SPAN,
    STAGE,
    Kind,
    Layout,
    pack_shard,
    shard_name,
    unpack_shard,
)
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.record.schema import MISSING
from pipeprof.vocabulary import owners

HEADER_BYTES: Final = 10_240
_NAMES_AT: Final = 128
_NAME_BYTES: Final = 64
_LOSS_AT: Final = 8192
LOSS_BYTES: Final = HEADER_BYTES - _LOSS_AT
MOST_NAMES: Final = (_LOSS_AT - _NAMES_AT) // _NAME_BYTES
_COUNT, _TAKEN, _DROPPED, _NAMES, _THREAD, _EPOCH, _FINISHED, _BUSY, _UNREAD, _ASKED_EPOCH, _LOSS = range(11)
_LAST_ASKED, _LAST_SENT = 11, 12
"""The words of a slot's header: see `Slot` for what each holds."""

MOST_SHARDS: Final = 0xFFFF
"""Largest number of shards that a slot's batches can name; batches of later shards have none."""

_SPARE_SHARE: Final = 8
"""Divisor of a slot's records for those kept free for batches: without one of theirs, all later steps would
be taken for those of the batch before."""

OTHER: Final = owners.STAGE.called("(other)")
"""Stage for the times of stages that come after a slot's table of names is full."""


def slot_bytes(records: int) -> int:
    """Return the size of one slot of `records` records."""
    return HEADER_BYTES + records * RECORD_BYTES


def make_block(slots: int, records: int) -> SharedBlock:
    """Make a block for `slots` writers. Its pages are taken from memory only when they are first written."""
    return SharedBlock(slots * slot_bytes(records), "pipeprof-ring")


def _appender(layout: Layout, keeps_spare: bool) -> Callable[..., bool]:
    """Make the method of `Slot` that appends a record: `put(slot, name, epoch, seq, *, figure=..., ...)`.

    A figure that is not passed is `MISSING`. It returns False if the slot is full: the record is dropped and
    counted. With `keeps_spare` that is so as soon as only the room that is kept for batches is left.

    The method is compiled from source because keywords of a signature cost next to nothing; a mapping of them
    would cost 1 µs a batch.
    """
    figures = ", ".join(layout.figures)
    defaults = ", ".join(f"{figure}={MISSING}" for figure in layout.figures)
    source = f"""
def put(_slot, _name, _epoch, _seq, *, {defaults}):
    _count = _slot._count
    if _count >= _slot.{"_spare_at" if keeps_spare else "_full_at"} and _slot._drops({keeps_spare}):
        return False
    _number = _count & 0xFFFFFFFF
    _at = {HEADER_BYTES} + _count % _slot._records * {RECORD_BYTES}
    _pack_into(_slot._view, _at, _number, {layout.kind:d}, _name, _epoch, _seq, {figures}, _number)
    _slot._words[{_COUNT}] = _slot._count = _count + 1
    return True
"""
    names: dict[str, Any] = {"_pack_into": layout.struct.pack_into}
    exec(compile(source, __file__, "exec"), names)  # so that its frames are known for ours
    put: Callable[..., bool] = names["put"]
    return put


class Slot:
    """The writing end, used by one thread of one process."""

    def __init__(self, block: SharedBlock, index: int, records: int, thread: int) -> None:
        start = index * slot_bytes(records)
        self._view = memoryview(block.buffer)[start : start + slot_bytes(records)]
        self._words = self._view[:_NAMES_AT].cast("Q")
        self._records = records
        self._count = self._words[_COUNT]
        self._spare = records // _SPARE_SHARE
        self._full_at = self._words[_TAKEN] + records
        self._spare_at = self._full_at - self._spare
        self._ids: dict[str, int] = {}
        self._shards: dict[str | bytes, int] = {}
        self._words[_THREAD] = thread

    put_batch = _appender(BATCH, keeps_spare=False)
    put_stage = _appender(STAGE, keeps_spare=True)
    put_span = _appender(SPAN, keeps_spare=True)
    put_node = _appender(NODE, keeps_spare=False)
    put_samples = _appender(SAMPLES, keeps_spare=False)
    put_counter = _appender(COUNTER, keeps_spare=True)
    put_file = _appender(FILE, keeps_spare=True)
    _put_shard = _appender(SHARD, keeps_spare=True)

    def _drops(self, keeps_spare: bool) -> bool:
        """Look how far the reader has come; if there is no room still, count a dropped record."""
        self._full_at = self._words[_TAKEN] + self._records
        self._spare_at = self._full_at - self._spare
        full = self._count >= (self._spare_at if keeps_spare else self._full_at)
        self._words[_DROPPED] += full
        return full

    def name_id(self, name: str) -> int:
        """Return the number that stands for `name` in this slot's records."""
        known = self._ids.get(name)
        if known is None:
            known = self._ids[name] = self._new_name(name)
        return known

    def _new_name(self, name: str) -> int:
        n = self._words[_NAMES]
        if n == MOST_NAMES:
            return MOST_NAMES - 1
        if n == MOST_NAMES - 1:
            name = OTHER
        text = name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self._view[_NAMES_AT + n * _NAME_BYTES : _NAMES_AT + (n + 1) * _NAME_BYTES] = text
        self._words[_NAMES] = n + 1
        return n

    def shard_id(self, file: str | bytes) -> int:
        """Return the number that stands for `file` in this slot's batches; 0 if there is no room."""
        known = self._shards.get(file)
        return self._new_shard(file) if known is None else known

    def _new_shard(self, file: str | bytes) -> int:
        """Name a shard in a record of its own: there are too many of them for the table of names."""
        shard = len(self._shards) + 1
        if shard > MOST_SHARDS or not self._put_shard(shard, 0, 0, text=pack_shard(shard_name(file))):
            return 0
        self._shards[file] = shard
        return shard

    def making(self, seq: int) -> None:
        """Note that the worker makes batch `seq`."""
        self._words[_BUSY] = seq + 1

    def idle(self) -> None:
        """Note that the worker waits for a batch to make."""
        self._words[_BUSY] = 0

    def lose(self, text: bytes) -> None:
        """Report the first batch that was lost, from any thread of the worker; later ones are not
        reported."""
        if not self._words[_LOSS]:
            text = text[:LOSS_BYTES]
            self._view[_LOSS_AT : _LOSS_AT + len(text)] = text
            self._words[_LOSS] = len(text)

    @property
    def unread(self) -> bool:
        """Return True if this slot is no longer drained: the observation has ended."""
        return bool(self._words[_UNREAD])

    @property
    def last_asked(self) -> bool:
        """Return True once the reader wants what is not yet sent: it will take nothing that comes later."""
        return bool(self._words[_LAST_ASKED])

    def sent_last(self) -> None:
        """Note that all is sent that the reader asked for."""
        self._words[_LAST_SENT] = 1

    @property
    def asked_epoch(self) -> int:
        """Return the epoch of the batches that the loop asks for now, if it says so: see `Ring.ask`."""
        return self._words[_ASKED_EPOCH]

    def close(self) -> None:
        """Give the memory back: nothing more is written."""
        self._words.release()
        self._view.release()

    def finished(self, epoch: int) -> None:
        """Count one more batch of `epoch` on its way to the main process; the worker waits for the next."""
        words = self._words
        if words[_EPOCH] != epoch:
            words[_FINISHED] = 0
            words[_EPOCH] = epoch
        words[_FINISHED] += 1
        words[_BUSY] = 0


class Ring:
    """The reading end of all slots of one iterator."""

    def __init__(self, slots: int, records: int) -> None:
        self.block = make_block(slots, records)
        self.slots, self.records = slots, records
        self._closing = threading.Lock()
        size = slot_bytes(records)
        whole = memoryview(self.block.buffer)
        self._words = [whole[i * size : i * size + _NAMES_AT].cast("Q") for i in range(slots)]
        self._data = [
            np.frombuffer(whole, ANY_RECORD, records, i * size + HEADER_BYTES) for i in range(slots)
        ]
        self._names: list[list[str]] = [[] for _ in range(slots)]
        self._shards: list[dict[int, str]] = [{} for _ in range(slots)]

    def drain(self, slot: int) -> npt.NDArray[Any]:
        """Take what the worker has counted; a record that is not yet whole waits for the next call."""
        words = self._words[slot]
        taken, count = words[_TAKEN], words[_COUNT]
        if count == taken:
            return self._data[slot][:0]
        numbers = np.arange(taken, count)
        records = self._data[slot][numbers % self.records]
        number = (numbers & 0xFFFFFFFF).astype(np.uint32)
        torn = np.flatnonzero((records["number"] != number) | (records["again"] != number))
        if len(torn):
            records = records[: torn[0]]
        words[_TAKEN] = taken + len(records)
        return records

    def names(self, slot: int) -> list[str]:
        """Return the names that the slot's records have numbers for."""
        names, there = self._names[slot], self._words[slot][_NAMES]
        base = slot * slot_bytes(self.records) + _NAMES_AT
        for n in range(len(names), there):
            raw = bytes(self.block.buffer[base + n * _NAME_BYTES : base + (n + 1) * _NAME_BYTES])
            names.append(raw.rstrip(b"\0").decode(errors="replace"))
        return names

    def shards(self, slot: int, records: npt.NDArray[Any]) -> dict[int, str]:
        """Return the shards that the slot's batches have numbers for, those named in `records` among them."""
        known = self._shards[slot]
        for row in records[records["kind"] == Kind.SHARD].view(SHARD.dtype):
            known[int(row["name"])] = unpack_shard(bytes(row["text"]))
        return known

    def ask(self, epoch: int) -> None:
        """Say which epoch's batches are asked for from now on."""
        for words in self._words:
            words[_ASKED_EPOCH] = epoch

    def ask_last(self) -> None:
        """Ask each writer for what it has not yet sent: it is drained once more."""
        for words in list(self._words):  # another thread may close the ring meanwhile
            words[_LAST_ASKED] = 1

    def awaited(self) -> list[int]:
        """Return the threads of the writers that were asked for the last, and have not yet sent it."""
        return [words[_THREAD] for words in list(self._words) if words[_THREAD] and not words[_LAST_SENT]]

    def fullest(self) -> float:
        """Return the share of the fullest slot that waits to be drained."""
        return max(((w[_COUNT] - w[_TAKEN]) / self.records for w in self._words), default=0.0)

    def dropped(self) -> int:
        """Count records that found their slot full."""
        return sum(w[_DROPPED] for w in self._words)

    def loss(self, slot: int) -> bytes:
        """Return what the slot's writer has reported of the first batch that was lost; nothing if none
        was."""
        size, at = self._words[slot][_LOSS], slot * slot_bytes(self.records) + _LOSS_AT
        return bytes(self.block.buffer[at : at + size])

    def threads(self) -> list[int]:
        """Return the kernel's number of each slot's writing thread, a worker's pid; 0 before its start."""
        return [w[_THREAD] for w in self._words]

    def busy(self, slot: int) -> bool:
        """Return whether the slot's writer is making a batch."""
        return bool(self._words[slot][_BUSY])

    def making(self, slot: int) -> int | None:
        """Return the number of the batch that the slot's writer is making, or was when it died."""
        return int(self._words[slot][_BUSY]) - 1 if self.busy(slot) else None

    def finished(self, epoch: int) -> int:
        """Count the batches of `epoch` that the workers have finished."""
        count = 0  # a plain loop: it runs at each request of the training loop
        for words in self._words:
            if words[_EPOCH] == epoch:
                count += words[_FINISHED]
        return count

    def close(self) -> None:
        """Let the memory go with its last user. A closed ring has no slots.

        Several threads may call: the loop's, whose iterator is made as the run ends, and the one that drains.
        """
        if not self._closing.acquire(blocking=False):
            return
        while self._words:  # a loop's variable would keep a view, and the memory mapped
            self._words.pop()[_UNREAD] = 1
        self.slots, self._data = 0, []
        with suppress(BufferError):  # without workers, the loop's own slot may be in use
            self.block.buffer.close()
        self.block.close()
