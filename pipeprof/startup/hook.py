"""Has this process observed from its first DataLoader on; a process that uses none imports nothing for it.

Torch is not imported here: the script may still set what torch reads when it is imported. Once the module of
torch's loaders has been executed, the first loader or iterator that is made begins the observation.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from typing import Any, Final

from pipeprof.environment import TRACE, ThisProcess, enter

LOADERS: Final = "torch.utils.data.dataloader"
_BEGINNING: Final = ("DataLoader", "_SingleProcessDataLoaderIter", "_MultiProcessingDataLoaderIter")
"""Classes whose first instance begins the observation. Some libraries make torch's iterators themselves."""


def start() -> None:
    """Observe this process from its first DataLoader on. Never raises; later calls do nothing."""
    if ThisProcess.is_settled or not os.environ.get(TRACE):
        return
    if "://" not in os.environ[TRACE]:  # the process may change its directory
        os.environ[TRACE] = os.path.abspath(os.environ[TRACE])  # noqa: PTH100
    enter()
    if LOADERS in sys.modules:
        _await(sys.modules[LOADERS])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """Finder that finds nothing itself, and waits for the module of torch's loaders."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the other finders' spec of that module, whose execution is followed by ours."""
        if name != LOADERS:
            return None
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _await(module)

            try:
                spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            except AttributeError:
                enter("its torch is imported by a loader that cannot be followed")
        return spec


def _await(module: Any) -> None:
    for name in _BEGINNING:
        if hasattr(module, name):
            _wrap(getattr(module, name))


def _wrap(cls: Any) -> None:
    """Have the first instance of `cls` begin the observation, before it is made."""
    original = cls.__init__

    @functools.wraps(original)
    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        first = not ThisProcess.is_settled
        ours = cls.__dict__.get("__init__") is init  # else something has wrapped it: it does nothing then
        if ours:
            cls.__init__ = original
        _begin()
        # the observation may just have replaced the constructor, for this instance too
        make = cls.__init__ if first and ours else original
        make(self, *arguments, **keywords)

    cls.__init__ = init


def _begin() -> None:
    if ThisProcess.is_settled:
        return
    ThisProcess.is_settled = True
    try:
        import_module("pipeprof.measure.session.processes.observed").observe_this_process()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        enter(why)
        print(f"pipeprof: process {os.getpid()} is not observed: {why}", file=sys.stderr)
