"""Has the main thread of this process call a function at its next bytecode; usable from any thread."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

_waiting: Final[list[Callable[[], None]]] = []


def _run(_: Any) -> int:
    with suppress(Exception):  # it is called in the middle of the user's program
        while _waiting:
            _waiting.pop(0)()
    return 0


_RUN: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_run)
"""One for the life of the process: the interpreter may call it whenever it likes."""


def call_soon(function: Callable[[], None]) -> None:
    """Have the main thread call `function`, as it calls handlers of signals."""
    _waiting.append(function)
    ctypes.pythonapi.Py_AddPendingCall(_RUN, None)
