"""albumentations: each transform of a pipeline, by its class."""

from __future__ import annotations

from typing import Final

from pipeprof.measure.probe.adapters.staged import Seam, staged, transform_of_first

SEAMS: Final[tuple[Seam, ...]] = (
    ("albumentations.core.transforms_interface:BasicTransform", "__call__", staged(transform_of_first)),
)
