"""How records leave a worker: a ring in shared memory, one slot a worker, fixed records of 128 bytes.

The worker writes a record before it counts it, so that what is counted is whole, up to the instant of a
SIGKILL; each record also carries its number at both ends, because some CPUs reorder stores. The main process
drains in bulk. A full slot drops and counts what it drops: it never waits and never overwrites.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.measure.shards import SHARD_BYTES, packed, shard_name, unpacked
from pipeprof.measure.shared import SharedBlock

RECORD_BYTES: Final = 128
_LONG: Final = struct.Struct("<IBBHii13qII")
_SHORT: Final = struct.Struct("<IBBHii5q64xII")
_TEXT: Final = struct.Struct(f"<IBBHii{SHARD_BYTES}sII")
RECORD_DTYPE: Final = np.dtype(
    [
        ("head", "<u4"),
        ("kind", "u1"),
        ("flag", "u1"),
        ("name", "<u2"),
        ("epoch", "<i4"),
        ("seq", "<i4"),
        *((word, "<i8") for word in "abcdefghijklm"),
        ("aux", "<u4"),
        ("tail", "<u4"),
    ]
)
_TEXT_AT: Final = 16
HEADER_BYTES: Final = 8192
_NAMES_AT: Final = 128
_NAME_BYTES: Final = 64
MOST_NAMES: Final = (HEADER_BYTES - _NAMES_AT) // _NAME_BYTES
_COUNT, _TAKEN, _DROPPED, _NAMES, _THREAD, _READY_NS, _EPOCH, _FINISHED, _BUSY = range(9)
"""The words of a slot's header: see `Slot` for what each holds."""

MOST_SHARDS: Final = 0xFFFF
"""That a slot's batches can name; those of later ones have none."""

_KEPT_FREE: Final = 8
"""One record in so many is kept free for batches: without one of theirs, all later steps of the epoch would
be taken for those of the batch before."""

OTHER: Final = "stage:(other)"
"""Where the times of stages go that come after a slot's table of names is full."""


class Kind(IntEnum):
    """What a record tells. The words `a` to `e`, for a batch `a` to `m`, and `aux`, mean for each:"""

    BATCH = 1
    """dispatch_ns, start_ns, finish_ns, cpu_ns, runq_ns; device_bytes, helper_cpu_ns, major_faults, bytes,
    slowest_index, slowest_ns, getitem_ns, collate_ns; aux: samples. The last two stand for records of stages
    of their own, which nearly every batch would have. `name` is the number of its shard, 0 where none is
    known."""
    STAGE = 3
    """wall_ns, cpu_ns, runq_ns, queue_ns, bytes; aux: count. `flag` is the scope."""
    SPAN = 4
    """start_ns, wall_ns, cpu_ns, bytes, sample."""
    SHARD = 5
    """In place of the words a text: what the number in `name` stands for, in the batches that follow."""


Words = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]


def slot_bytes(records: int) -> int:
    """Size of one slot of `records` records."""
    return HEADER_BYTES + records * RECORD_BYTES


def make_block(slots: int, records: int) -> SharedBlock:
    """A block for `slots` writers. Its pages are taken from memory only when they are first written."""
    return SharedBlock(slots * slot_bytes(records), "pipeprof-ring")


class Slot:
    """The writing end, used by one thread of one process."""

    def __init__(self, block: SharedBlock, index: int, records: int, thread: int) -> None:
        start = index * slot_bytes(records)
        self._view = memoryview(block.buffer)[start : start + slot_bytes(records)]
        self._words = self._view[:_NAMES_AT].cast("Q")
        self._records = records
        self._count = self._words[_COUNT]
        self._kept_free = records // _KEPT_FREE
        self._last_at = self._words[_TAKEN] + records
        self._full_at = self._last_at - self._kept_free
        self._ids: dict[str, int] = {}
        self._shards: dict[str | bytes, int] = {}
        self._words[_THREAD] = thread

    def put(
        self, kind: int, flag: int, name: int, epoch: int, seq: int,
        a: int, b: int, c: int, d: int, e: int, aux: int,
    ) -> None:  # fmt: skip
        """Append one record, or count it as dropped where the reader is a whole ring behind."""
        n = self._count
        if n >= self._full_at and self._full(self._kept_free):
            return
        number = n & 0xFFFFFFFF
        at = HEADER_BYTES + n % self._records * RECORD_BYTES
        _SHORT.pack_into(self._view, at, number, kind, flag, name, epoch, seq, a, b, c, d, e, aux, number)
        self._words[_COUNT] = self._count = n + 1

    def put_batch(self, epoch: int, seq: int, words: Words, samples: int, shard: int = 0) -> None:
        """Append the record of a batch, or count it as dropped."""
        n = self._count
        if n >= self._last_at and self._full(0):
            return
        number = n & 0xFFFFFFFF
        at = HEADER_BYTES + n % self._records * RECORD_BYTES
        _LONG.pack_into(self._view, at, number, Kind.BATCH, 0, shard, epoch, seq, *words, samples, number)
        self._words[_COUNT] = self._count = n + 1

    def _full(self, kept_free: int) -> bool:
        self._last_at = self._words[_TAKEN] + self._records
        self._full_at = self._last_at - self._kept_free
        full = self._count >= self._last_at - kept_free
        self._words[_DROPPED] += full
        return full

    def name_id(self, name: str) -> int:
        """The number that stands for `name` in this slot's records."""
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
        """The number that stands for `file` in this slot's batches; 0 where it could not be told."""
        known = self._shards.get(file)
        return self._new_shard(file) if known is None else known

    def _new_shard(self, file: str | bytes) -> int:
        """Tell of a shard in a record of its own: there are too many of them for the table of names."""
        n, shard = self._count, len(self._shards) + 1
        if shard > MOST_SHARDS or (n >= self._full_at and self._full(self._kept_free)):
            return 0
        number = n & 0xFFFFFFFF
        at = HEADER_BYTES + n % self._records * RECORD_BYTES
        text = packed(shard_name(file))
        _TEXT.pack_into(self._view, at, number, Kind.SHARD, 0, shard, 0, 0, text, 0, number)
        self._words[_COUNT] = self._count = n + 1
        self._shards[file] = shard
        return shard

    def ready(self, now_ns: int) -> None:
        """The worker has started."""
        self._words[_READY_NS] = now_ns

    def busy(self, making: bool) -> None:
        """The worker makes a batch, or waits for one to make."""
        self._words[_BUSY] = making

    def finished(self, epoch: int) -> None:
        """One more batch of `epoch` is on its way to the main process, and the worker waits for the next."""
        words = self._words
        if words[_EPOCH] != epoch:
            words[_FINISHED] = 0
            words[_EPOCH] = epoch
        words[_FINISHED] += 1
        words[_BUSY] = False


class Ring:
    """The reading end of all slots of one iterator."""

    def __init__(self, slots: int, records: int) -> None:
        self.block = make_block(slots, records)
        self.slots, self.records = slots, records
        size = slot_bytes(records)
        whole = memoryview(self.block.buffer)
        self._words = [whole[i * size : i * size + _NAMES_AT].cast("Q") for i in range(slots)]
        self._data = [
            np.frombuffer(whole, RECORD_DTYPE, records, i * size + HEADER_BYTES) for i in range(slots)
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
        torn = np.flatnonzero((records["head"] != number) | (records["tail"] != number))
        if len(torn):
            records = records[: torn[0]]
        words[_TAKEN] = taken + len(records)
        return records

    def names(self, slot: int) -> list[str]:
        """The names that the slot's records have numbers for."""
        names, there = self._names[slot], self._words[slot][_NAMES]
        base = slot * slot_bytes(self.records) + _NAMES_AT
        for n in range(len(names), there):
            raw = bytes(self.block.buffer[base + n * _NAME_BYTES : base + (n + 1) * _NAME_BYTES])
            names.append(raw.rstrip(b"\0").decode(errors="replace"))
        return names

    def shards(self, slot: int, records: npt.NDArray[Any]) -> dict[int, str]:
        """The shards that the slot's batches have numbers for, those told of in `records` among them."""
        known = self._shards[slot]
        for row in records[records["kind"] == Kind.SHARD]:
            known[int(row["name"])] = unpacked(row.tobytes()[_TEXT_AT : _TEXT_AT + SHARD_BYTES])
        return known

    def fullest(self) -> float:
        """Share of the fullest slot that waits to be drained."""
        return max(((w[_COUNT] - w[_TAKEN]) / self.records for w in self._words), default=0.0)

    def dropped(self) -> int:
        """Records that found their slot full."""
        return sum(w[_DROPPED] for w in self._words)

    def threads(self) -> list[int]:
        """Kernel's number of each slot's writing thread, a worker's pid; 0 where it has not started."""
        return [w[_THREAD] for w in self._words]

    def busy(self, slot: int) -> bool:
        """Whether the slot's writer is making a batch."""
        return bool(self._words[slot][_BUSY])

    def ready_ns(self) -> list[int]:
        """When each slot's writer started; 0 where it has not."""
        return [w[_READY_NS] for w in self._words]

    def finished(self, epoch: int) -> int:
        """Batches of `epoch` that the workers have finished."""
        found = 0  # a plain loop: it runs at each request of the training loop
        for words in self._words:
            if words[_EPOCH] == epoch:
                found += words[_FINISHED]
        return found

    def close(self) -> None:
        """Let the memory go with its last user. A closed ring has no slots."""
        self.slots = 0
        self._words, self._data = [], []
        with suppress(BufferError):  # without workers, the loop's own slot may be in use
            self.block.buffer.close()
        self.block.close()
