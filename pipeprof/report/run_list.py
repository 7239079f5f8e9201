"""The runs below a directory, newest first, read from `run.json` and the verdict recorded beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeprof import units
from pipeprof.errors import TraceError
from pipeprof.record.choice import RecordedChoice, read_choice
from pipeprof.record.reader import load
from pipeprof.record.schema import RUN_JSON

DEPTH = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """Run of a directory, or a job of several ranks."""

    directory: Path
    name: str
    status: str
    created: str
    when: str
    """ISO time, to sort by."""
    emulated: tuple[str, ...]
    ranks: int | None = None
    """Number of its ranks; None for a run of one process."""
    cell: bool = False
    """True for a cell of a matrix."""
    verdict: RecordedChoice | None = None
    """The verdict that was given of it; None if none was yet."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict, for JSON."""
        verdict = self.verdict
        return {
            "directory": str(self.directory),
            "name": self.name,
            "status": self.status,
            "created_at": self.when,
            "emulated": list(self.emulated),
            "ranks": self.ranks,
            "cause": verdict and verdict.cause,
            "fix": verdict and verdict.fix,
            "stall_share": verdict and verdict.stall_share,
            "throughput_samples_per_s": verdict and verdict.throughput_samples_per_s,
        }


def entries(directory: Path, depth: int = DEPTH) -> list[Entry]:
    """Return the runs in `directory` and up to `depth` levels below, newest first; unreadable ones say so.

    The ranks of a job are one entry, of the job's directory. Raises `TraceError` for anything but a
    directory.
    """
    if not directory.is_dir():
        raise TraceError(f"{directory} is not a directory", "give one that holds runs")
    by_directory: dict[Path, Entry] = {}
    for path in _records(directory, depth):
        entry = _entry(path.parent)
        job = _job_of(path.parent)
        if job is not None:
            before = by_directory.get(job)
            count = 1 + (before.ranks or 0 if before else 0)
            verdict = before.verdict if before else read_choice(job)
            entry = replace(entry, directory=job, ranks=count, verdict=verdict)
        by_directory[entry.directory] = entry
    return sorted(by_directory.values(), key=lambda entry: (entry.when, str(entry.directory)), reverse=True)


def _job_of(directory: Path) -> Path | None:
    """Return the job's directory that contains a rank's directory; None if it is not a rank's."""
    name, _, number = directory.name.partition("-")
    return directory.parent if name == "rank" and number.isdecimal() else None


def _records(directory: Path, depth: int) -> Iterator[Path]:
    record, below = directory / RUN_JSON, list[Path]()
    try:
        if record.is_file():
            yield record
        elif depth > 0:
            below = [child for child in directory.iterdir() if child.is_dir() and not child.is_symlink()]
    except OSError:  # another user's
        return
    for child in below:
        yield from _records(child, depth - 1)


def _entry(directory: Path) -> Entry:
    try:
        run = load(directory)
    except TraceError:
        return Entry(directory, directory.name, "unreadable", "", "", ())
    when = run.meta.created_at or ""
    return Entry(
        directory,
        Path(run.meta.name).name or directory.name,
        run.status,
        units.moment(when),
        when,
        run.meta.emulated,
        cell=bool(run.meta.settings.cell),
        verdict=read_choice(directory),
    )
