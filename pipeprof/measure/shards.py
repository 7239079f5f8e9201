"""How a shard is called in the record: the end of its path, or of its URL."""

from __future__ import annotations

import os
from typing import Final

SHARD_BYTES: Final = 104
"""Room for a name in a record of the ring."""


def shard_name(file: str | bytes) -> str:
    """The last two parts of a path; of a URL neither the host nor the query, which may hold a password."""
    path = os.fsdecode(file).replace(os.sep, "/")
    _, remote, rest = path.partition("://")
    if remote:
        path = rest.partition("?")[0].partition("/")[2]
    return "/".join(path.rsplit("/", 2)[-2:])


def packed(name: str) -> bytes:
    """The name's end, as far as there is room: what tells shards apart stands there."""
    return name.encode(errors="replace")[-SHARD_BYTES:]


def unpacked(data: bytes) -> str:
    """The name that was packed; a character that was cut in two is a mark."""
    return data.rstrip(b"\0").decode(errors="replace")
