"""Bands of the stall share, as TensorFlow Profiler's input-pipeline analyser draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

BandWord = Literal["not", "moderately", "highly"]


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A range of the stall share."""

    word: BandWord
    label: str
    below: float
    """Upper bound of the stall share; it belongs to the next band."""


NOT: Final = Band("not", "not input-bound", 0.05)
MODERATELY: Final = Band("moderately", "moderately input-bound", 0.20)
HIGHLY: Final = Band("highly", "highly input-bound", 1.0)
BANDS: Final = (NOT, MODERATELY, HIGHLY)


def band_of(stall_share: float) -> Band:
    """Return the band of a stall share: its lower bound belongs to it."""
    return next((band for band in BANDS if stall_share < band.below), HIGHLY)


def label_of(word: str | None) -> str:
    """Return a band's label; "in no band" if none was given."""
    return next((band.label for band in BANDS if band.word == word), "in no band")
