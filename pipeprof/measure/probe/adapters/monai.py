"""MONAI: each transform of a `Compose`, by its class.

`Compose` looks `apply_transform` up in its own module for each of its transforms.
"""

from __future__ import annotations

from typing import Final

from pipeprof.measure.probe.adapters.staged import Seam, staged, transform_of_first

SEAMS: Final[tuple[Seam, ...]] = (
    ("monai.transforms.compose", "apply_transform", staged(transform_of_first)),
)
