"""Finds the import, or the line, after which this process may run on fewer cores than before.

Some libraries bind the process to a core when they are loaded, and workers inherit that. The mask is checked
before each module is searched for: a mask that has shrunk since the last look was changed by the module
before, or by what ran soon after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType
from typing import Any, Final

from pipeprof.measure.probe.patches import patch, release

_HOLDER: Final = "mask of cores"


class AffinityWatch(MetaPathFinder):
    """Looks at the mask from `start` to `stop`. It finds no module itself."""

    def __init__(self) -> None:
        self.since: str | None = None
        """Cause of this process's smaller mask; None if it has not shrunk."""
        self._cores = 0
        self._import: str | None = None

    def start(self) -> None:
        """Begin to look, if this system has such masks."""
        if hasattr(os, "sched_getaffinity"):
            self._cores = len(os.sched_getaffinity(0))
            sys.meta_path.insert(0, self)
            patch(_HOLDER, os, "sched_setaffinity", self._watched)

    def stop(self) -> None:
        """Look a last time."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            release(_HOLDER)
            self._look(self._import)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Look at the mask; leave the finding to others."""
        self._look(self._import)
        self._import = f"the import of {_outermost(name)}"
        return None

    def _look(self, since: str | None) -> None:
        try:
            cores = len(os.sched_getaffinity(0))
        except OSError:  # an import must not fail for it
            return
        if cores < self._cores and self.since is None:
            self.since = since
        self._cores = cores

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sched_setaffinity(*arguments: Any) -> Any:
            self._look(self._import)
            result = original(*arguments)
            caller = sys._getframe(1)
            self._look(f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}")  # noqa: PTH119
            return result

        return sched_setaffinity


def _outermost(name: str) -> str:
    """Return the first of the modules that are being imported now: the one that the program asked for."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and "importlib" in frame.f_code.co_filename:
            name = frame.f_locals.get("name", name)
        frame = frame.f_back
    return name
