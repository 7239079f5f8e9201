"""pipeprof: is the accelerator waiting for data, why, and what would fix it.

The public names, and nothing else; a name's module is imported when the name is asked for, so that a
program that only reads runs never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

__version__ = "0.1.0"

_HOMES: Final[dict[str, str]] = {
    "ProfiledDataLoader": "pipeprof.measure.loader",
    "profile": "pipeprof.measure.loader",
    "stage": "pipeprof.measure.recorder",
    "emulate": "pipeprof.measure.emulate",
    "tune": "pipeprof.simulate.tune",
    "load": "pipeprof.simulate.answer",
    "PipeprofError": "pipeprof.errors",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeprof' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # `pipeprof.stage` stands in inner loops: the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
