"""The layout of the ring's records: named figures, from which all that writes or reads a record is made.

A record is a head of 16 bytes (its number, kind, the number of a name, epoch, seq), figures of 8 bytes each,
and its number again. The figures are the columns of the kind's table in `record.schema`. One more figure is
one more column there: it is in the struct, the dtype and the rows of the run from then on, as `MISSING` and
null until whoever writes the record passes it by name.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

import numpy as np

from pipeprof.record.schema import TABLES

GETITEM_NS: Final = "getitem_ns"
COLLATE_NS: Final = "collate_ns"
"""Figures of a batch that become rows of `stages`: nearly every batch would have a record for each."""


class Kind(IntEnum):
    """Kind of a record. Each value's note says what `name` in the record's head is the number of."""

    BATCH = 1
    """Number of the batch's shard; 0 if none is known."""
    STAGE = 2
    """Number of the stage, in the slot's table of names."""
    SPAN = 3
    """The same."""
    SHARD = 4
    """Number of the text in this record, for the batches that follow."""
    NODE = 5
    """No name. `epoch` is the number of a call path, `seq` that of the piece of its text."""
    SAMPLES = 6
    """Number of the stage. `epoch` is the number of the call path."""
    COUNTER = 7
    """Number of the counter."""
    FILE = 8
    """No name. `epoch` is the number of a file that was opened, `seq` that of the piece of its path."""


SHARD_BYTES: Final = 104
"""Room for the name of a shard."""
_INTEGER: Final = "q"
NODE_TEXT_BYTES: Final = 96
"""Room for the text of a call path in one record; a longer one takes several."""
FILE_TEXT_BYTES: Final = 96
"""The same for the path of a file."""
_NO_FIGURES: Final = frozenset({"loader", "epoch", "seq", "worker", "shard", "stage", "scope"})
"""Columns that stand in the head of a record, or follow from its place in the ring."""


def _columns(table: str) -> dict[str, str]:
    return {name: _INTEGER for name in TABLES[table].names if name not in _NO_FIGURES}


_FIGURES: Final[Mapping[Kind, Mapping[str, str]]] = {
    Kind.BATCH: {**_columns("batches"), GETITEM_NS: _INTEGER, COLLATE_NS: _INTEGER},
    Kind.STAGE: _columns("stages"),
    Kind.SPAN: _columns("spans"),
    Kind.SHARD: {"text": f"{SHARD_BYTES}s"},
    Kind.NODE: {"parent": _INTEGER, "text": f"{NODE_TEXT_BYTES}s"},
    Kind.SAMPLES: dict.fromkeys(("samples", "wall_ns", "cpu_ns"), _INTEGER),
    Kind.COUNTER: {"value": _INTEGER},
    Kind.FILE: {"size_bytes": _INTEGER, "text": f"{FILE_TEXT_BYTES}s"},
}
"""Name of each figure, and its letter in `struct`."""

_HEAD_STRUCT: Final = "<IHHii"
_HEAD_DTYPE: Final = {
    "number": ("<u4", 0),
    "kind": ("<u2", 4),
    "name": ("<u2", 6),
    "epoch": ("<i4", 8),
    "seq": ("<i4", 12),
}
_HEAD_BYTES: Final = struct.calcsize(_HEAD_STRUCT)
_TAIL_BYTES: Final = 8
RECORD_BYTES: Final = (
    _HEAD_BYTES
    + max(struct.calcsize("<" + "".join(figures.values())) for figures in _FIGURES.values())
    + _TAIL_BYTES
)
_AGAIN_AT: Final = RECORD_BYTES - 4


class Layout:
    """Memory layout of one kind of record."""

    def __init__(self, kind: Kind) -> None:
        letters = _FIGURES[kind]
        self.kind, self.figures = kind, tuple(letters)
        body = "".join(letters.values())
        padding = _AGAIN_AT - _HEAD_BYTES - struct.calcsize(f"<{body}")
        self.struct = struct.Struct(f"{_HEAD_STRUCT}{body}{padding}xI")
        """Packs number, kind, name, epoch, seq, the figures, and the number again."""
        self.dtype = _dtype(letters)


def _dtype(letters: Mapping[str, str]) -> np.dtype[Any]:
    fields: dict[str, tuple[str, int]] = dict(_HEAD_DTYPE)
    at = _HEAD_BYTES
    for name, letter in letters.items():
        size = struct.calcsize(f"<{letter}")
        fields[name] = ("<i8" if letter == _INTEGER else f"V{size}", at)
        at += size
    fields["again"] = ("<u4", _AGAIN_AT)
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype(
        {"names": list(fields), "formats": list(formats), "offsets": list(offsets), "itemsize": RECORD_BYTES}
    )


BATCH: Final = Layout(Kind.BATCH)
STAGE: Final = Layout(Kind.STAGE)
SPAN: Final = Layout(Kind.SPAN)
SHARD: Final = Layout(Kind.SHARD)
NODE: Final = Layout(Kind.NODE)
SAMPLES: Final = Layout(Kind.SAMPLES)
COUNTER: Final = Layout(Kind.COUNTER)
FILE: Final = Layout(Kind.FILE)

ANY_RECORD: Final = _dtype({"body": f"{_AGAIN_AT - _HEAD_BYTES}s"})
"""A record of any kind, of which `records.view(BATCH.dtype)` reads the figures of a batch. It has no gaps:
numpy copies fields alone."""


def shard_name(file: str | bytes) -> str:
    """Return the last two parts of a path; of a URL no host and no query, which may hold a password."""
    path = os.fsdecode(file).replace(os.sep, "/")
    _, remote, rest = path.partition("://")
    if remote:
        path = rest.partition("?")[0].partition("/")[2]
    return "/".join(path.rsplit("/", 2)[-2:])


def pack_shard(name: str) -> bytes:
    """Return the name's end, as far as there is room: that is where the names of shards differ."""
    return name.encode(errors="replace")[-SHARD_BYTES:]


def unpack_shard(data: bytes) -> str:
    """Return the name that was packed; a character that was cut in two is a mark."""
    return data.rstrip(b"\0").decode(errors="replace")
