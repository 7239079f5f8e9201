"""Asks the kernel whether a thread of this process waits for the interpreter's lock (GIL).

CPython counts no such wait. But the kernel reports in which system call a thread is blocked and with which
arguments, and a thread that waits for the lock waits on the futex of one condition variable: its address is
looked up once, on a thread that is known to wait. All reading is done without letting go of the lock, so that
what is seen is as it was when the caller got it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

_FUTEX: Final = {"x86_64": b"202", "aarch64": b"98"}.get(platform.machine())
"""Number of the system call, as `/proc` writes it."""
_HALVES: Final = 4
"""Bytes between the two futexes of one condition variable of glibc, which are used in turn."""
_THREADS_CPU: Final = 6
"""Lowest bits of the number that Linux gives the CPU clock of a thread: it is asked for by number, since a
thread that has ended has no memory to look into."""
_MOST_LOOKS: Final = 20
_ENOUGH: Final = 4
"""Looks at a waiting thread that have to find it at the same address; it may lack a core at others."""
_HOLD_US: Final = 1_000
"""Time for which the lock is held at each of them, so that the other thread comes to wait for it."""
_NAP_S: Final = 0.0002
_READ_BYTES: Final = 256


class Used(NamedTuple):
    """Time that a thread has had, or waited for, since it began."""

    cpu_ns: int
    runq_ns: int
    """It could run, and no core was free."""


@functools.cache
def _with_lock() -> ctypes.PyDLL:
    """Load the C library, once: its functions are called without letting go of the lock."""
    return ctypes.PyDLL(None)


class LockState:
    """Looks at threads by the kernel's numbers for them. Only the process that made it may use it."""

    def __init__(self) -> None:
        self._read: Callable[..., int] = lambda *arguments: 0
        self._buffer = ctypes.create_string_buffer(_READ_BYTES)
        self._files: dict[tuple[int, str], int] = {}
        self._pid = os.getpid()
        self._lock_address: int | None = None

    def open(self) -> bool:
        """Prepare to read. False if this system reports nothing."""
        if sys.platform != "linux":
            return False
        read = _with_lock().pread
        read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
        read.restype = ctypes.c_ssize_t
        self._read = read
        if self not in _open_states:
            _open_states.append(self)
        return True

    def find_lock(self) -> bool:
        """Look up where the lock is waited for. False if this system does not report it; takes some ms."""
        if _FUTEX is None or not _has_lock() or not self.open():
            return False
        hold = _with_lock().usleep
        numbers: list[int] = []
        helper = threading.Thread(target=_nap_until, args=(numbers,), name="pipeprof-lock", daemon=True)
        helper.start()
        while not numbers:
            time.sleep(_NAP_S)
        found: list[int] = []
        try:
            for _ in range(_MOST_LOOKS):
                hold(_HOLD_US)
                address = self._futex(numbers[0])
                found += [] if address is None else [address]
                if len(found) == _ENOUGH:
                    break
                time.sleep(_NAP_S)
        finally:
            numbers.append(0)
            helper.join()
            self.forget(numbers[0])
        if len(found) == _ENOUGH and max(found) - min(found) <= _HALVES:
            self._lock_address = min(found)
        return self._lock_address is not None

    def waits(self, thread: int) -> bool:
        """Return whether a thread is blocked where the lock is waited for."""
        address = self._futex(thread)
        known = self._lock_address
        # of two futexes in turn, one of which may not have been seen
        return address is not None and known is not None and abs(address - known) <= _HALVES

    def used(self, thread: int) -> Used | None:
        """Return the CPU time of a thread, and its waiting for a core; None if it has ended."""
        runq_ns, cpu_ns = self.runq_ns(thread), self.cpu_ns(thread)
        return None if cpu_ns is None or runq_ns is None else Used(cpu_ns, runq_ns)

    def runq_ns(self, thread: int) -> int | None:
        """Return the time that a thread has waited for a core; None if it has ended, or that is not told."""
        fields = self._text(thread, "schedstat").split()
        return None if len(fields) < 2 else int(fields[1])

    def cpu_ns(self, thread: int) -> int | None:
        """Return the CPU time of a thread; None if it has ended, or this system does not report it."""
        try:
            return time.clock_gettime_ns(~thread << 3 | _THREADS_CPU)
        except (AttributeError, OSError, OverflowError):
            return None

    def forget(self, thread: int) -> None:
        """Close what is open of a thread."""
        for key in [key for key in self._files if key[0] == thread]:
            _close(self._files.pop(key))

    def close(self) -> None:
        """Close all files."""
        for number in self._files.values():
            _close(number)
        self._files.clear()
        if self in _open_states:
            _open_states.remove(self)

    def _futex(self, thread: int) -> int | None:
        """Return the address that a thread waits at; None if it runs, or is blocked in another call."""
        fields = self._text(thread, "syscall").split()
        return int(fields[1], 16) if len(fields) > 1 and fields[0] == _FUTEX else None

    def _text(self, thread: int, name: str) -> bytes:
        number = self._files.get((thread, name))
        if number is None:
            try:
                number = os.open(f"/proc/{self._pid}/task/{thread}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return b""
            self._files[thread, name] = number
        size = self._read(number, self._buffer, _READ_BYTES, 0)
        return self._buffer.raw[:size] if size > 0 else b""


def _nap_until(numbers: list[int]) -> None:
    numbers.append(threading.get_native_id())
    while len(numbers) < 2:
        time.sleep(_NAP_S)


def _has_lock() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _close(number: int) -> None:
    with suppress(OSError):
        os.close(number)


_open_states: Final[list[LockState]] = []
"""Those with open files, which a forked child closes: they refer to its parent's threads."""


def _forked() -> None:
    for state in list(_open_states):
        state.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
