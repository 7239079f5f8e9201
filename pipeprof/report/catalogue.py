"""The runs below a directory, one line each, read from `run.json` alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeprof.errors import TraceError
from pipeprof.report.facts import created
from pipeprof.trace import RUN_JSON, load

DEPTH = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a directory."""

    directory: Path
    name: str
    status: str
    created: str
    when: str
    """ISO time, to sort by."""
    emulated: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "directory": str(self.directory),
            "name": self.name,
            "status": self.status,
            "created_at": self.when,
            "emulated": list(self.emulated),
        }


def entries(directory: Path) -> list[Entry]:
    """The runs in `directory` and up to `DEPTH` levels below it, the newest first; unreadable ones say so."""
    if not directory.is_dir():
        raise TraceError(f"{directory} is no directory", "give one that holds runs")
    found = [_entry(path.parent) for path in _records(directory, DEPTH)]
    return sorted(found, key=lambda entry: (entry.when, str(entry.directory)), reverse=True)


def _records(directory: Path, depth: int) -> Iterator[Path]:
    record = directory / RUN_JSON
    if record.is_file():
        yield record
    elif depth > 0:
        try:
            below = [child for child in directory.iterdir() if child.is_dir() and not child.is_symlink()]
        except OSError:
            return
        for child in below:
            yield from _records(child, depth - 1)


def _entry(directory: Path) -> Entry:
    try:
        run = load(directory)
    except TraceError:
        return Entry(directory, directory.name, "unreadable", "", "", ())
    meta = run.meta
    when = str(meta.get("created_at") or "")
    emulated = tuple(str(part) for part in meta.get("emulated") or ())
    return Entry(directory, str(meta.get("name") or ""), run.status, created(when), when, emulated)
