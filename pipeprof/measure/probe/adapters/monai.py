"""MONAI: each transform of a `Compose`, by its class, and its readers of volumes as `read`.

`Compose` looks `apply_transform` up in its own module for each of its transforms. A reader opens a file in
`read`, and decompresses it there or in `get_data`.
"""

from __future__ import annotations

from typing import Final

from pipeprof.measure.probe.adapters.staged import Seam, called, staged, transform_of_first
from pipeprof.measure.probe.spans import READ

_READERS: Final = (
    "ITKReader",
    "NibabelReader",
    "NrrdReader",
    "NumpyReader",
    "PILReader",
    "PydicomReader",
)
SEAMS: Final[tuple[Seam, ...]] = (
    ("monai.transforms.compose", "apply_transform", staged(transform_of_first)),
    *(
        (f"monai.data.image_reader:{reader}", step, staged(called(READ)))
        for reader in _READERS
        for step in ("read", "get_data")
    ),
)
