"""Finds the stages of third-party libraries, one library per file.

A seam is module and class, name, and what replaces it, as in `auto_stages`. It is used where the library is
loaded. What is written in C and cannot be replaced, such as LMDB's transactions, stays in the stage around
it; samples of lines show it.
"""

from __future__ import annotations

from typing import Final

from pipeprof.measure.probe.adapters import (
    albumentations,
    hdf5,
    monai,
    opencv,
    pyav,
    shards,
    tokenizers,
    torchaudio,
)

SEAMS: Final = (
    *albumentations.SEAMS,
    *hdf5.SEAMS,
    *monai.SEAMS,
    *opencv.SEAMS,
    *pyav.SEAMS,
    *shards.SEAMS,
    *tokenizers.SEAMS,
    *torchaudio.SEAMS,
)
