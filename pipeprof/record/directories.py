"""Directories of runs: where they are made, and how the parts of a job share one directory."""

from __future__ import annotations

import atexit
from contextlib import suppress
from datetime import datetime
from errno import ENOENT
from os import strerror
from pathlib import Path
from typing import Final

from pipeprof.errors import TraceError
from pipeprof.record.schema import RUN_JSON

RUNS: Final = Path("runs")
"""Directory, below the current one, in which run directories are made when none is named."""


def new_directory(name: str, parent: Path = RUNS) -> Path:
    """Make `runs/<name>-<time>`, with a number behind it if several runs start in one second.

    It is made at once, so that no other process can have it too, and is gone at exit if it is still empty.
    Raises `TraceError` if it cannot be made.
    """
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, _MOST_IN_ONE_SECOND):
        directory = parent / (f"{stem}-{number}" if number > 1 else stem)
        try:
            _make_with_parent(directory)
        except FileExistsError:
            continue
        except OSError as error:
            raise TraceError(f"cannot write {parent}: {error.strerror}", "choose another --out") from error
        _made.append(directory.absolute())
        return directory
    make_directory(parent)  # the parent itself may be in the way: a link that leads nowhere
    raise TraceError(f"{parent} holds {stem} a thousand times", "choose another --out")


_MOST_IN_ONE_SECOND: Final = 1000


def _make_with_parent(directory: Path) -> None:
    """Make missing directories; retry if another process at its exit removes the empty parent meanwhile."""
    for _ in range(_MOST_REMOVALS):
        try:
            directory.mkdir(parents=True)
        except FileNotFoundError:
            continue
        return
    raise FileNotFoundError(ENOENT, strerror(ENOENT), str(directory))


_MOST_REMOVALS: Final = 100


_made: Final[list[Path]] = []
"""Directories that this process has made, and that may still be empty."""


def remove_unused() -> None:
    """Remove the directories that were made and hold no run, and their parent if nothing else is in it."""
    while _made:
        directory = _made.pop()
        with suppress(OSError):  # it holds a run
            directory.rmdir()
            directory.parent.rmdir()


atexit.register(remove_unused)


def make_directory(directory: Path) -> None:
    """Make a directory unless it exists. Raises `TraceError` if something else is there, or `OSError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:  # a file, or a link that leads nowhere
        raise TraceError(f"{directory} is not a directory", "choose another --out") from error


def already_recorded(directory: Path) -> TraceError:
    """Return the error for a directory that already holds a run."""
    return TraceError(f"{directory} already holds a run", "choose another --out")


def refuse_recorded(directory: Path) -> None:
    """Refuse a directory that already holds a run, or those of a program's processes. Raises `TraceError`."""
    if (directory / RUN_JSON).exists() or processes(directory):
        raise already_recorded(directory)


def next_free(directory: Path) -> Path:
    """Return `directory`; if it holds a run already, the first of `directory-2`, … that does not."""
    number, free = 1, directory
    while (free / RUN_JSON).exists() or processes(free) or parts(free):
        number += 1
        free = directory.with_name(f"{directory.name}-{number}")
    return free


def part_of(directory: Path, rank: int) -> Path:
    """Return the directory in which rank `rank` of a job of several writes its own run, below the job's."""
    return directory / f"rank-{rank}"


def attempt_of(directory: Path, restart: int) -> Path:
    """Return the directory for all ranks of a job whose launcher has begun again `restart` times."""
    return directory / f"restart-{restart}" if restart else directory


def attempts(directory: Path) -> list[Path]:
    """List the directories of later attempts of the job in `directory`, in order; those with parts."""
    by_number = {path.name[8:]: path for path in directory.glob("restart-*") if parts(path)}
    return [by_number[number] for number in sorted(filter(str.isdecimal, by_number), key=int)]


def parts(directory: Path) -> dict[int, Path]:
    """Return the runs of the ranks of a job in `directory`, by rank; empty if it is not a job's directory."""
    by_rank = {path.parent.name[5:]: path.parent for path in directory.glob(f"rank-*/{RUN_JSON}")}
    return {int(rank): by_rank[rank] for rank in sorted(filter(str.isdecimal, by_rank), key=int)}


def process_directory(directory: Path) -> Path:
    """Make the directory of one more process of a traced program, below the program's.

    Raises `TraceError` if it cannot be made.
    """
    for number in range(1, MOST_PROCESSES + 1):
        path = directory / f"process-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another place") from error
        return path
    raise TraceError(
        f"{directory} holds {MOST_PROCESSES} processes already", "trace the one script that matters"
    )


MOST_PROCESSES: Final = 256
"""Processes of one traced program that are recorded at most."""


def processes(directory: Path) -> list[Path]:
    """List the runs of a traced program's processes in `directory`, in order of their numbers."""
    by_number = {path.parent.name[8:]: path.parent for path in directory.glob(f"process-*/{RUN_JSON}")}
    return [by_number[number] for number in sorted(filter(str.isdecimal, by_number), key=int)]
