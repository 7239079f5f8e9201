"""The data files that a process has mapped into its memory or holds open, from `/proc`.

Programs, libraries and what lies in memory are left out. Nothing is read of the files themselves.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeprof.record.meta import ReadFileMeta
from pipeprof.record.schema import STREAM_SUFFIX

_LEAST_BYTES: Final = 1 << 20
"""Size below which a file that is mapped or held is a program's own, and not its data."""
_NO_DATA: Final = (".so", ".py", ".pyc", ".mo", ".log", STREAM_SUFFIX, ".cache", ".jar")
_PROGRAMS: Final = tuple(
    {
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        "/usr",
        "/lib",
        "/dev",
        "/proc",
        "/sys",
        "/etc",
    }
)
"""Directories of programs, of what the kernel makes, and of shared memory."""


def data_files(pid: int, proc: Path = Path("/proc")) -> list[ReadFileMeta]:
    """List the files of a process; none if it is gone, or another user's."""
    files = dict.fromkeys(_held(proc / str(pid)), "held")
    files |= dict.fromkeys(_mapped(proc / str(pid)), "mapped")
    described = (_described(path, how) for path, how in files.items())
    return [each for each in described if each is not None]


def _mapped(process: Path) -> Iterator[str]:
    """Yield the files of mappings of which no part may be executed."""
    programs: set[str] = set()
    files: dict[str, None] = {}
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                files[fields[5]] = None
                if "x" in fields[1]:
                    programs.add(fields[5])
    yield from (path for path in files if path not in programs)


def _held(process: Path) -> Iterator[str]:
    """Yield the files that are open for reading alone."""
    with suppress(OSError):
        for number in os.listdir(process / "fd"):  # noqa: PTH208 - names alone, and some hundreds of them
            with suppress(OSError, ValueError, IndexError):
                path = os.readlink(process / "fd" / number)  # noqa: PTH115 - the text, whatever it leads to
                if path.startswith("/"):
                    info = (process / "fdinfo" / number).read_text().splitlines()
                    flags = next(line for line in info if line.startswith("flags:")).split()[1]
                    if int(flags, 8) & os.O_ACCMODE == os.O_RDONLY:
                        yield path


def _described(path: str, how: str) -> ReadFileMeta | None:
    if path.startswith(_PROGRAMS) or path.endswith((*_NO_DATA, " (deleted)")) or ".so." in path:
        return None
    with suppress(OSError, ValueError):
        status = os.stat(path)  # noqa: PTH116 - no reason to build a Path
        if stat.S_ISREG(status.st_mode) and status.st_size >= _LEAST_BYTES:
            return ReadFileMeta(path, status.st_size, how)
    return None
