"""Notes the first items of a worker's stream, so that the same items from several workers can be seen."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import numpy as np
import torch

MOST_ITEMS: Final = 64
"""Items of each worker and epoch that are noted."""
_MOST_BYTES: Final = 4096
_MOST_PARTS: Final = 16
_DEEPEST: Final = 4
_PLAIN: Final = (str, int, float, bool, complex, type(None))


def digest(item: Any) -> int | None:
    """Return a number for the content of an item: arrays, numbers, text, and containers of those.

    None if it is not known: what has no content of a known kind, such as an object of the user's. No method
    of such an object is called.
    """
    try:
        return _add(item, 0, depth=0)
    except Exception:  # a tensor that is elsewhere than in this process's memory, for one
        return None


def _add(item: Any, crc: int, depth: int) -> int | None:
    kind = type(item)
    content = _content(item, kind)
    if content is not None:
        return zlib.crc32(content[:_MOST_BYTES], crc)
    if depth > _DEEPEST:
        return crc
    # the base class's own iterator: one that the user has overridden may change what is iterated
    if issubclass(kind, dict):
        return _add_all((part for pair in dict.items(item) for part in pair), crc, depth)
    for base in (list, tuple):
        if issubclass(kind, base):
            return _add_all(base.__iter__(item), crc, depth)
    return None


def _content(item: Any, kind: type) -> bytes | bytearray | None:
    """Return the first bytes of what holds no other items."""
    if kind in (bytes, bytearray):
        content: bytes | bytearray = item
        return content
    if kind in _PLAIN:
        return repr(item).encode(errors="replace")
    if kind is torch.Tensor:
        item, kind = item.detach().numpy(), np.ndarray
    if kind is np.ndarray and not item.dtype.hasobject:
        return bytes(item.flat[: _MOST_BYTES // 8].tobytes())
    return bytes(item.tobytes()) if issubclass(kind, np.generic) else None


def _add_all(parts: Iterable[Any], crc: int, depth: int) -> int | None:
    digests = []
    for part in islice(parts, _MOST_PARTS):
        digests.append(_add(part, crc, depth + 1))
        crc = crc if digests[-1] is None else digests[-1]
    return crc if not digests or any(each is not None for each in digests) else None
