"""torchaudio: `load` reads and decodes a file."""

from __future__ import annotations

from typing import Final

from pipeprof.measure.probe.adapters.staged import Seam, called, staged
from pipeprof.measure.probe.spans import DECODE

SEAMS: Final[tuple[Seam, ...]] = (("torchaudio", "load", staged(called(DECODE))),)
