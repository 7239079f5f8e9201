"""Memory that processes share, under any start method, and that is gone with the process that made it.

A `SharedBlock` is an anonymous file (memfd) that its owner maps. It pickles as the path of the owner's
descriptor, which other processes of the same user may open while the owner lives; nothing can be left behind,
not even by a SIGKILL. If there is no memfd, an unlinked-at-exit temporary file takes its place.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeprof.errors import MeasureError

try:
    import fcntl
except ImportError:  # Windows: rings work, what needs a lock between processes does not
    fcntl = None  # type: ignore[assignment]


_among_threads = threading.Lock()
"""An flock does not keep the threads of its process from each other."""


def _new_lock() -> None:
    global _among_threads  # noqa: PLW0603 - a lock that another thread held at the fork stays locked for ever
    _among_threads = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def flocked(fd: int, waits: Callable[[], None]) -> Iterator[None]:
    """Hold an flock on an open file until the block's end. `waits` is called if another process has it.

    Raises `MeasureError` if the system has none.
    """
    if fcntl is None:
        raise _no_flock()
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waits()
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _no_flock() -> MeasureError:
    return MeasureError("this system has no flock", "emulated and generated data need Linux or macOS")


class SharedBlock:
    """`size_bytes` of zeroed memory, shared by every process that this object reaches.

    With a `directory` it is a file there that has no name, which the kernel may write back and forget. Raises
    `OSError` if the directory has no room for all of it.
    """

    def __init__(self, size_bytes: int, name: str = "pipeprof", directory: Path | None = None) -> None:
        self.size_bytes = size_bytes
        if directory is None:
            self._fd, self.path = _anonymous_file(size_bytes, name)
        else:
            self._fd, self.path = _nameless_file(size_bytes, name, directory)
        self._owner_pid = os.getpid()
        self._map: mmap.mmap | None = None
        self._lock_fd: int | None = None
        self._lock_pid: int | None = None
        self._is_closed = False
        self._close = weakref.finalize(self, _release, self._fd, self.path, self._owner_pid)

    def __getstate__(self) -> dict[str, Any]:
        return {"size_bytes": self.size_bytes, "path": self.path, "_owner_pid": self._owner_pid}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _fd=-1, _map=None, _lock_fd=None, _lock_pid=None, _is_closed=False)

    @property
    def is_made_here(self) -> bool:
        """Return whether this process made it, and closes it when nothing here needs it any more."""
        return self._owner_pid == os.getpid()

    @property
    def buffer(self) -> mmap.mmap:
        """Return the block, mapped into this process; it survives a fork.

        Raises `ValueError` if the block is closed: its descriptor may be another file's by now.
        """
        if self._is_closed:
            raise ValueError("the block is closed")
        if self._map is None:
            fd = self._fd if self._fd >= 0 else os.open(self.path, os.O_RDWR)
            self._map = mmap.mmap(fd, self.size_bytes)
            if fd != self._fd:
                os.close(fd)
        return self._map

    @contextmanager
    def locked(self) -> Iterator[mmap.mmap]:
        """Give the block, with every other process and thread kept out. Lock one block at a time.

        An flock on a description of this process's own: the kernel drops it when the process dies, whereas a
        multiprocessing.Lock would stay locked forever.
        """
        if fcntl is None:
            raise _no_flock()
        with _among_threads:
            fd = self._own_description()
            fcntl.flock(fd, fcntl.LOCK_EX)  # written out: each request of an emulated device comes here
            try:
                yield self.buffer
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _own_description(self) -> int:
        # A description inherited through fork would share its lock with the parent.
        if self._lock_fd is None or self._lock_pid != os.getpid():
            if self._lock_fd is not None:
                os.close(self._lock_fd)
            self._lock_fd = os.open(self.path, os.O_RDWR)
            self._lock_pid = os.getpid()
        return self._lock_fd

    def close(self) -> None:
        """Release this process's descriptors; the memory goes with its last user."""
        self._is_closed = True
        if self._map is not None:
            with suppress(BufferError):  # someone still looks at it; it goes with them
                self._map.close()  # a map holds a descriptor of its own
            self._map = None
        if self._lock_fd is not None and self._lock_pid == os.getpid():
            os.close(self._lock_fd)
        self._lock_fd = None
        if hasattr(self, "_close"):
            self._close()


def _anonymous_file(size_bytes: int, name: str) -> tuple[int, str]:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        path = f"/proc/{os.getpid()}/fd/{fd}"
    else:
        fd, path = tempfile.mkstemp(prefix=name)
    os.ftruncate(fd, size_bytes)
    return fd, path


def _nameless_file(size_bytes: int, name: str, directory: Path) -> tuple[int, str]:
    """Make a file and remove its name; its blocks are taken now, since a map cannot say "disk full"."""
    fd, path = tempfile.mkstemp(prefix=name, dir=directory)
    Path(path).unlink()
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd, f"/proc/{os.getpid()}/fd/{fd}"


def _release(fd: int, path: str, owner_pid: int) -> None:
    os.close(fd)
    if os.getpid() == owner_pid and not path.startswith("/proc/"):
        with suppress(OSError):  # Windows keeps a file that is still mapped
            Path(path).unlink()
