"""Time cut into pieces, each with its owners. The law of this room: what is cut sums to what there was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.pipeline import Ints, Window

Rows = npt.NDArray[np.int32]
Shares = npt.NDArray[np.float32]
NS_PER_S: Final = 1_000_000_000

ALWAYS: Final = (
    "accelerator",
    "h2d",
    "pin",
    "transfer",
    "collate",
    "decode",
    "storage:device",
    "storage:queueing",
    "storage:network",
    "storage:client",
    "storage:first-byte",
    "storage:throttled",
    "storage:retry",
    "cpu-contention",
    "blocked",
    "straggler",
    "startup",
    "collective",
    "main",
    "unknown",
)
"""Owners of every run (DESIGN §4), `storage` already split; `transform:` and `stage:` names come after."""

CODE: Final = {name: code for code, name in enumerate(ALWAYS)}


@dataclass(frozen=True, slots=True)
class Tiling:
    """Consecutive pieces of time and who owned each.

    Piece i lasts from `bounds[i]` to `bounds[i + 1]`. `rows[i]` is an owner where it is below `len(owners)`;
    above, it is a row of `mixes` (float, one column an owner, each row sums to 1) plus `len(owners)`.
    """

    owners: tuple[str, ...]
    bounds: Ints
    rows: Rows
    mixes: Shares

    def totals(self, window: Window) -> dict[str, int]:
        """Nanoseconds of each owner in `window`; sums to its wall exactly. Owners of nothing are left out."""
        weights = self._weights(window)
        plain = len(self.owners)
        whole = np.rint(weights[:plain]).astype(np.int64)
        mixed = np.flatnonzero(weights[plain:])
        parts = weights[plain + mixed] @ self.mixes[mixed].astype(np.float64)
        whole += largest_remainder(parts, window.wall_ns - int(whole.sum()))
        return {name: int(ns) for name, ns in zip(self.owners, whole, strict=True) if ns}

    def _weights(self, window: Window) -> npt.NDArray[np.float64]:
        size = len(self.owners) + len(self.mixes)
        first = max(0, int(np.searchsorted(self.bounds, window.start_ns, "right")) - 1)
        last = int(np.searchsorted(self.bounds, window.end_ns, "left"))
        lengths = np.diff(np.clip(self.bounds[first : last + 1], window.start_ns, window.end_ns))
        rows = self.rows[first : first + len(lengths)]
        return add_up(rows, lengths, size)


def add_up(group: npt.NDArray[Any], values: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """The sums of `values` by group, 0 to `size` - 1."""
    return np.asarray(np.bincount(group, values, minlength=size), dtype=np.float64)


def largest_remainder(parts: npt.NDArray[np.float64], total: int) -> Ints:
    """`parts`, scaled to sum to `total` and rounded to integers that do so exactly.

    Hamilton's method: round down, then give what is missing to the largest remainders. With no part above 0
    the last one, `parts[-1]`, gets everything.
    """
    whole = np.zeros(len(parts), dtype=np.int64)
    amount = float(parts.sum())
    if amount <= 0:
        whole[-1] = total
        return whole
    scaled = parts * (total / amount)
    whole[:] = np.floor(scaled)
    missing = total - int(whole.sum())
    order = np.argsort(-(scaled - whole), kind="stable")
    if missing >= 0:
        whole[order[:missing]] += 1
    else:  # the floats' own rounding went past the total by a few
        whole[int(np.argmax(whole))] += missing
    return whole


def tile(owners: tuple[str, ...], bounds: Ints, rows: Rows, mixes: Shares) -> Tiling:
    """A tiling without its empty pieces."""
    kept = np.flatnonzero(np.diff(bounds) > 0)
    ends = bounds[kept + 1] if len(kept) else bounds[-1:]
    return Tiling(owners, np.concatenate([bounds[:1], ends]), rows[kept], mixes)


def cut(bounds: Ints, rows: Rows, at: Ints) -> tuple[Ints, Rows]:
    """The same tiling with more bounds; those outside are left out."""
    inside = at[(at > bounds[0]) & (at < bounds[-1])]
    merged = np.sort(np.concatenate([bounds, inside]), kind="stable")  # both are sorted: one merge
    merged = merged[np.append(True, np.diff(merged) > 0)]
    place = np.searchsorted(bounds, merged[:-1], "right") - 1
    return merged, rows[place]
