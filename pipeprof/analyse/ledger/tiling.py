"""Time cut into pieces, each with its owners. The invariant of this room: the pieces sum to what was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.passes import Bools, Ints, Spans, Window
from pipeprof.vocabulary import owners

Rows = npt.NDArray[np.int32]
Shares = npt.NDArray[np.float32]
CHUNK: Final = 1 << 16
"""Number of pieces that are worked on at a time if all at once would need much memory."""

CODE: Final = {name: code for code, name in enumerate(owners.FIXED)}
"""Codes of the owners that every run has; those with names of its own come after."""
OUTSIDE: Final = CODE[owners.OUTSIDE.name]
"""Code of time of no loop (`Window.outside`)."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Consecutive pieces of time and who owned each.

    Piece i lasts from `bounds[i]` to `bounds[i + 1]`. `rows[i]` is an owner if it is below `len(owners)`;
    above, it is a row of `mixes` (float, one column an owner, each row sums to 1) plus `len(owners)`.
    """

    owners: tuple[str, ...]
    bounds: Ints
    rows: Rows
    mixes: Shares

    def totals(self, window: Window) -> dict[str, int]:
        """Return each owner's nanoseconds in `window`; they sum to its wall exactly. Owners of nothing are
        left out."""
        weights = self._weights(window)
        plain = len(self.owners)
        whole = np.rint(weights[:plain]).astype(np.int64)
        whole[OUTSIDE] = 0
        parts = np.zeros(plain)
        mixed = np.flatnonzero(weights[plain:])
        for first in range(0, len(mixed), CHUNK):  # in double precision, without a copy of all
            some = mixed[first : first + CHUNK]
            parts += weights[plain + some] @ self.mixes[some].astype(np.float64)
        whole += largest_remainder(parts, window.wall_ns - int(whole.sum()))
        return {name: int(ns) for name, ns in zip(self.owners, whole, strict=True) if ns}

    def between(self, wanted: Callable[[str], bool], times: Ints) -> npt.NDArray[np.float64]:
        """Return nanoseconds that the `wanted` owners had between each two of `times`, in order."""
        mine = np.array([wanted(owner) for owner in self.owners], dtype=np.float64)
        parts = [self._share(mine, first) for first in range(0, len(self.mixes), CHUNK)]
        rate = np.concatenate([mine, *parts])[self.rows]
        spent = np.append(0.0, np.cumsum(np.diff(self.bounds) * rate))
        origin = self.bounds[0]
        return np.diff(np.interp(times - origin, self.bounds - origin, spent))

    def _share(self, mine: npt.NDArray[np.float64], first: int) -> npt.NDArray[np.float64]:
        """Return what `mine` owns of each of `CHUNK` mixes, in double precision without a copy of all."""
        some = self.mixes[first : first + CHUNK].astype(np.float64)
        total = some.sum(axis=1)
        return np.asarray(some @ mine / np.where(total > 0, total, 1))

    def _weights(self, window: Window) -> npt.NDArray[np.float64]:
        size = len(self.owners) + len(self.mixes)
        first = max(0, int(np.searchsorted(self.bounds, window.start_ns, "right")) - 1)
        last = int(np.searchsorted(self.bounds, window.end_ns, "left"))
        bounds = np.clip(self.bounds[first : last + 1], window.start_ns, window.end_ns)
        rows = self.rows[first : first + max(0, len(bounds) - 1)]
        if len(window.outside[0]) and len(rows):
            bounds, rows, inside = cut_out(bounds, rows, window.outside)
            return add_up(rows[~inside], np.diff(bounds)[~inside], size)
        return add_up(rows, np.diff(bounds), size)


def normalised(mixes: Shares) -> Shares:
    """Scale each row, in place, to sum to 1; negative values become 0, an empty row becomes `unknown`."""
    np.maximum(mixes, 0, out=mixes)
    total = mixes.sum(axis=1)
    empty = total <= 0
    mixes[empty, CODE[owners.UNKNOWN.name]] = 1
    mixes /= np.where(empty, 1, total)[:, None]
    return mixes


def add_up(group: npt.NDArray[Any], values: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """Sum `values` by group, 0 to `size` - 1."""
    return np.asarray(np.bincount(group, values, minlength=size), dtype=np.float64)


def largest_remainder(parts: npt.NDArray[np.float64], total: int) -> Ints:
    """Scale `parts` to sum to `total` and round them to integers that do so exactly.

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
    """Return a tiling without its empty pieces."""
    kept = np.flatnonzero(np.diff(bounds) > 0)
    return Tiling(owners, np.concatenate([bounds[:1], bounds[kept + 1]]), rows[kept], mixes)


def cut(bounds: Ints, rows: Rows, at: Ints) -> tuple[Ints, Rows]:
    """Return the same tiling with more bounds, which are in order; those outside are left out."""
    lasting = np.diff(bounds) > 0
    if not lasting.all():  # of pieces of nothing no part is left
        bounds, rows = bounds[np.append(True, lasting)], rows[lasting]
    inside = at[(at > bounds[0]) & (at < bounds[-1])]
    place = np.searchsorted(bounds, inside, "right")
    new = (inside > bounds[place - 1]) & np.append(True, np.diff(inside) > 0)[: len(inside)]
    inside, place = inside[new], place[new]
    return np.insert(bounds, place, inside), np.insert(rows, place, rows[place - 1])


def cut_out(bounds: Ints, rows: Rows, spans: Spans) -> tuple[Ints, Rows, Bools]:
    """Return the tiling cut at the edges of disjoint `spans`, and which of its pieces lie in one of them."""
    begins, ends = spans
    bounds, rows = cut(bounds, rows, np.sort(np.concatenate([begins, ends]), kind="stable"))
    place = np.searchsorted(begins, bounds[:-1], "right") - 1
    return bounds, rows, (place >= 0) & (bounds[:-1] < ends[np.maximum(place, 0)])
